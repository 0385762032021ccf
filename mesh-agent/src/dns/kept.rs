//! **Effect.** Tasks' sockets lie with the service manager, too, if it keeps descriptors (`FDSTORE=1` in sd_notify(3)): what
//! is asked while no agent runs waits in them, and the next agent answers it. Whose is which is `mesh_core::dns::kept`'s
//! decision.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_core::dns::kept::{self, Found, Kind, Shelf};
use mesh_core::model::TaskId;
use sd_notify::NotifyState::{Custom, FdName, FdStore, FdStoreRemove};
use socket2::{SockRef, Type};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::inside::{Ports, Sockets};
use crate::handed::Handed;

/// How long a message to the manager may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the manager has of us, and what of it nobody has taken over yet.
#[derive(Debug, Default)]
pub(super) struct Kept {
    state: Mutex<State>,
    /// The manager did not take a message.
    is_deaf: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    shelf: Shelf,
    found: Vec<Found>,
    /// One for each that was found.
    descriptors: Vec<Option<OwnedFd>>,
}

impl Kept {
    /// Looks at what came back.
    pub(super) fn of(handed: Vec<Handed>) -> Self {
        let (mut found, mut descriptors) = (Vec::new(), Vec::new());
        for Handed { name, descriptor } in handed {
            let this = Found { kind: kind(&descriptor), name };
            if this.is_ours() {
                found.push(this);
                descriptors.push(Some(descriptor));
            } else {
                tracing::warn!(
                    name = this.name,
                    "the service manager hands over a descriptor that is none of the agent's: it is left alone"
                );
            }
        }
        let state = State { shelf: Shelf::of(&found), found, descriptors };
        Self { state: Mutex::new(state), is_deaf: AtomicBool::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something came back that nobody has taken over yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.state().descriptors.iter().any(Option::is_some)
    }

    /// A task's own sockets from before.
    pub(super) async fn take(&self, task: &TaskId, namespace: u64) -> Option<Sockets> {
        let (taken, cleared) = self.state().take(task, namespace);
        self.remove_all(cleared).await;
        taken
    }

    /// Has the manager keep a task's sockets.
    pub(super) async fn put(&self, task: &TaskId, namespace: u64, sockets: &Sockets) {
        let Some(name) = self.state().shelf.put(task, namespace) else {
            tracing::debug!(%task, "too many tasks: names are not answered to this one while the agent is restarted");
            return;
        };
        let (Ok(udp), Ok(tcp)) = (sockets.udp.try_clone(), sockets.tcp.try_clone()) else { return };
        self.tell(move || {
            // An error of theirs is for us to see, and no reason to throw them away.
            let state = [FdStore, FdName(&name), Custom("FDPOLL=0")];
            sd_notify::notify_with_fds(&state, &[udp.as_fd(), tcp.as_fd()])
        })
        .await;
    }

    /// A task is served no more.
    pub(super) async fn remove(&self, task: &TaskId) {
        let name = self.state().shelf.take(task);
        self.remove_all(name).await;
    }

    /// All tasks are served that there are: what is left is of some that went while no agent ran.
    pub(super) async fn remove_rest(&self) {
        let rest = {
            let mut state = self.state();
            state.found.clear();
            state.descriptors.clear();
            state.shelf.take_rest()
        };
        self.remove_all(rest).await;
    }

    /// Has the manager throw away what has these names.
    async fn remove_all(&self, names: impl IntoIterator<Item = String>) {
        for name in names {
            self.tell(move || sd_notify::notify(&[FdStoreRemove, FdName(&name)])).await;
        }
    }

    /// Says something to whoever started the agent. He may not listen, and then nothing is kept; or not read what he is sent.
    async fn tell(&self, send: impl FnOnce() -> io::Result<()> + Send + 'static) {
        if self.is_deaf.load(Relaxed) {
            return;
        }
        match timeout(PATIENCE, spawn_blocking(send)).await {
            Ok(Ok(Ok(())) | Err(_)) => {}
            Ok(Ok(Err(error))) => tracing::debug!(%error, "the service manager cannot be told of sockets"),
            Err(_) => {
                self.is_deaf.store(true, Relaxed);
                tracing::warn!(
                    "the service manager does not read what it is told: names are not answered while the agent is restarted"
                );
            }
        }
    }
}

impl State {
    /// The sockets, or else what is to be taken away because it is not to be used.
    fn take(&mut self, task: &TaskId, namespace: u64) -> (Option<Sockets>, Option<String>) {
        let taken = kept::pair(&self.found, task, namespace).and_then(|pair| {
            let mut one = |place: usize| self.descriptors.get_mut(place)?.take();
            sockets(one(pair.udp)?, one(pair.tcp)?)
        });
        if taken.is_some() {
            self.shelf.found(task, namespace);
            return (taken, None);
        }
        let cleared = self.shelf.clear(task, namespace);
        for (found, descriptor) in self.found.iter().zip(&mut self.descriptors) {
            if Some(&found.name) == cleared.as_ref() {
                *descriptor = None;
            }
        }
        (None, cleared)
    }
}

/// The two as sockets.
fn sockets(udp: OwnedFd, tcp: OwnedFd) -> Option<Sockets> {
    let (udp, tcp) = (UdpSocket::from(udp), TcpListener::from(tcp));
    udp.set_nonblocking(true).and_then(|()| tcp.set_nonblocking(true)).ok()?;
    let ports = Ports::of(&udp, &tcp).ok()?;
    Some(Sockets { udp, tcp, ports, is_led: false })
}

fn kind(descriptor: &OwnedFd) -> Kind {
    let socket = SockRef::from(descriptor);
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    let (Some(SocketAddr::V4(address)), Ok(kind)) = (address, socket.r#type()) else { return Kind::Other };
    match kind {
        Type::DGRAM => Kind::Udp(address),
        Type::STREAM if matches!(socket.is_listener(), Ok(true)) => Kind::Tcp(address),
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a line of the unit says.
    fn unit(key: &str) -> usize {
        let unit = include_str!("../../packaging/systemd/mesh.service");
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {key} in the unit"))
    }

    #[test]
    fn an_agent_can_be_started_however_much_is_kept() {
        let most = unit("FileDescriptorStoreMax");
        let name = kept::name(&TaskId::from_random([255; 16]), u32::MAX.into()).unwrap();
        assert!("LISTEN_FDNAMES=".len() + most * (name.len() + 1) < 128 << 10, "a variable is too long");
        assert!(unit("LimitNOFILE") > most + 1024);
        // As many as the agent gives away.
        let mut shelf = Shelf::default();
        let task = |number: usize| TaskId::new(format!("{number:025}"));
        let given =
            (0..most).take_while(|number| shelf.put(&task(*number), u32::MAX.into()).is_some()).count();
        assert!(2 * given <= most && 2 * given + 100 > most, "{given}");
    }

    #[test]
    fn descriptors_are_seen_for_what_they_are() {
        let here =
            |address: SocketAddr| if let SocketAddr::V4(address) = address { address } else { panic!() };
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = here(udp.local_addr().unwrap());
        assert_eq!(kind(&udp.into()), Kind::Udp(address));
        let address = here(tcp.local_addr().unwrap());
        let talk = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(kind(&tcp.into()), Kind::Tcp(address));
        assert_eq!(kind(&talk.into()), Kind::Other);
        assert_eq!(kind(&UdpSocket::bind("[::1]:0").unwrap().into()), Kind::Other);
        assert_eq!(kind(&std::fs::File::open("/dev/null").unwrap().into()), Kind::Other);
        assert_eq!(kind(&io::pipe().unwrap().0.into()), Kind::Other);
    }
}
