//! **Effect.** Questions that came as datagrams are read, and answered, many with one call of the system: the calls,
//! and not what is said, are what a name server's time goes to.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::listen::LONGEST_QUESTION;

/// How many at once.
const MANY: usize = 32;

thread_local! {
    /// Nobody keeps it from one call to the next, so a thread's one is enough for all tasks.
    static BATCH: RefCell<Batch> = RefCell::new(Batch::new());
}

struct Batch {
    headers: MultiHeaders<SockaddrIn>,
    outgoing: MultiHeaders<SockaddrIn>,
    questions: Vec<[u8; LONGEST_QUESTION]>,
    came: Vec<(usize, SockaddrIn)>,
    replies: Vec<Vec<u8>>,
    to: Vec<Option<SockaddrIn>>,
}

/// Has the runtime wait for questions. Not also for room to write, as it does for its own sockets: the kernel would wake us
/// once more for each reply that its client has read.
#[expect(
    deprecated,
    reason = "its replacement is unsafe; a socket of the library has all that this one cannot check"
)]
pub(super) fn watch(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

/// Has `answer` write a reply, or nothing, to each question that has come, and sends what it wrote. An error of kind
/// [`io::ErrorKind::WouldBlock`] says that no more had come: a full batch may have left some behind.
pub(super) fn turn(
    socket: &UdpSocket,
    answer: impl FnMut(&[u8], SocketAddr, &mut Vec<u8>),
) -> io::Result<()> {
    BATCH.with_borrow_mut(|batch| {
        batch.receive(socket)?;
        batch.answer(answer);
        batch.send(socket);
        if batch.came.len() < MANY { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    })
}

impl Batch {
    fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(MANY, None),
            outgoing: MultiHeaders::preallocate(MANY, None),
            questions: vec![[0; LONGEST_QUESTION]; MANY],
            came: Vec::with_capacity(MANY),
            replies: vec![Vec::new(); MANY],
            to: Vec::with_capacity(MANY),
        }
    }

    fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.came.clear();
        let mut slices: Vec<_> = self.questions.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmmsg(socket.as_raw_fd(), &mut self.headers, slices.iter_mut(), flags, None)?;
        self.came.extend(received.filter_map(|message| Some((message.bytes, message.address?))));
        Ok(())
    }

    fn answer(&mut self, mut answer: impl FnMut(&[u8], SocketAddr, &mut Vec<u8>)) {
        self.to.clear();
        for ((length, from), question) in self.came.iter().zip(&self.questions) {
            let (Some(question), Some(reply)) =
                (question.get(..*length), self.replies.get_mut(self.to.len()))
            else {
                continue;
            };
            reply.clear();
            answer(question, SocketAddr::V4((*from).into()), reply);
            if !reply.is_empty() {
                self.to.push(Some(*from));
            }
        }
    }

    /// What cannot be sent is lost like any other datagram.
    fn send(&mut self, socket: &UdpSocket) {
        let replies = self.replies.iter().take(self.to.len());
        let slices: Vec<_> = replies.map(|reply| [IoSlice::new(reply)]).collect();
        let nothing: [ControlMessage<'_>; 0] = [];
        let mut sent = 0;
        while let (Some(to @ [_, ..]), Some(slices)) = (self.to.get(sent..), slices.get(sent..)) {
            let flags = MsgFlags::MSG_DONTWAIT;
            sent += match sendmmsg(socket.as_raw_fd(), &mut self.outgoing, slices, to, nothing, flags) {
                Ok(results) => results.count().max(1),
                Err(Errno::EAGAIN) => return,
                Err(_) => 1,
            };
        }
    }
}
