//! A packet as the hook hands it over: reading it, rewriting it, sending it elsewhere.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_TUNINFO_IPV6,
        BPF_F_ZERO_CSUM_TX, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_SHOT,
        bpf_fib_lookup as Route, bpf_tunnel_key,
    },
    helpers::generated::{
        bpf_fib_lookup, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer,
        bpf_skb_change_type, bpf_skb_get_tunnel_key, bpf_skb_load_bytes, bpf_skb_pull_data,
        bpf_skb_set_tunnel_key, bpf_skb_store_bytes,
    },
};
use mesh_ebpf::abi::{Addr16, MARK, MARK_WAITS, Mac, Peer, TCP};
use mesh_ebpf::csum;
use mesh_ebpf::frame::Frame;
use mesh_ebpf::mss;
use mesh_ebpf::packet::{ETH, Packet, has_tcp_headers};

/// Bytes that are made linear before they are parsed: up to the ports that an ICMPv6 error quotes.
const HEADERS: u32 = 14 + 40 + 8 + 40 + 8;
/// `PACKET_HOST` of linux/if_packet.h.
const PACKET_HOST: u32 = 0;
/// Of sys/socket.h.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Hops that a tunnelled packet may take.
const TTL: u8 = 64;
/// The loopback device of every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// The hook's context.
#[derive(Clone, Copy)]
pub(crate) struct Skb(pub(crate) *mut __sk_buff);

impl Skb {
    /// Its bytes, as far as they are linear.
    #[inline(always)]
    pub(crate) fn frame(&self) -> Frame<'_> {
        // SAFETY: the kernel vouches for what is between the two.
        unsafe { Frame::between((*self.0).data as usize, (*self.0).data_end as usize) }
    }

    /// Has the headers be linear. Large packets often come with little of them where a program can read; nearly all are
    /// TCP's and have what is read of those: more would be copied.
    #[inline(always)]
    pub(crate) fn pull(&self) {
        let headers = HEADERS.min(self.len());
        // SAFETY: the context is valid; the helper changes no content.
        unsafe {
            let is_short = (*self.0).data as usize + headers as usize > (*self.0).data_end as usize;
            if is_short && !has_tcp_headers(&self.frame()) {
                bpf_skb_pull_data(self.0, headers);
            }
        }
    }

    /// Bytes of the frame.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        // SAFETY: a field that may be read.
        unsafe { (*self.0).len }
    }

    /// Which VLAN its frame was tagged for: a device of its own has such frames. Zero: none, or all that the tag says is a
    /// priority (IEEE 802.1Q).
    #[inline(always)]
    pub(crate) fn vlan(&self) -> u32 {
        // SAFETY: fields that may be read.
        unsafe { if (*self.0).vlan_present == 0 { 0 } else { (*self.0).vlan_tci & 0xfff } }
    }

    /// Payload of each segment, if it is a bundle of several; otherwise zero.
    #[inline(always)]
    pub(crate) fn gso_size(&self) -> u32 {
        // SAFETY: a field that may be read.
        unsafe { (*self.0).gso_size }
    }

    /// The device that it came in by.
    #[inline(always)]
    pub(crate) fn device(&self) -> u32 {
        // SAFETY: a field that may be read.
        unsafe { (*self.0).ifindex }
    }

    /// Whether a program translated it before and handed it to the stack.
    #[inline(always)]
    pub(crate) fn is_marked(&self) -> bool {
        // SAFETY: a field that may be read.
        unsafe { (*self.0).mark == MARK }
    }

    /// How often a fragment waited already.
    #[inline(always)]
    pub(crate) fn waited(&self) -> u32 {
        // SAFETY: a field that may be read.
        let mark = unsafe { (*self.0).mark };
        if mark & !0xffff == MARK_WAITS { mark & 0xffff } else { 0 }
    }

    /// Has it come in by its device once more, after whatever waits there.
    #[inline(always)]
    pub(crate) fn wait(&self, device: u32, times: u32) -> i64 {
        // SAFETY: a field that may be written; the helper has no preconditions.
        unsafe {
            (*self.0).mark = MARK_WAITS | times;
            bpf_redirect(device, BPF_F_INGRESS as u64)
        }
    }

    /// As if it had never waited.
    #[inline(always)]
    pub(crate) fn unmark(&self) {
        // SAFETY: a field that may be written.
        unsafe { (*self.0).mark = 0 };
    }

    /// Marks it as let through.
    #[inline(always)]
    pub(crate) fn mark(&self) {
        // SAFETY: a field that may be written.
        unsafe { (*self.0).mark = MARK };
    }

    /// Writes `new` at an offset; false beyond the linear part.
    #[inline(always)]
    pub(crate) fn put<T: Copy>(&self, offset: usize, new: T) -> bool {
        // SAFETY: checked against the end, as the verifier demands.
        unsafe {
            let place = (*self.0).data as usize + offset;
            if place + size_of::<T>() > (*self.0).data_end as usize {
                return false;
            }
            *(place as *mut T) = new;
        }
        true
    }

    /// Gives the packet the addresses and ports that it is to be sent on with. False: it is no longer whole, and must
    /// be dropped.
    #[inline(always)]
    pub(crate) fn rewrite(&self, packet: &Packet, csum_v6: u32) -> bool {
        let (old, new) = (&packet.tuple, &packet.sent);
        if old == new {
            return true;
        }
        let addresses = csum::add(csum::diff_addr(&old.src, &new.src), csum::diff_addr(&old.dst, &new.dst));
        // Constants, for the verifier.
        let l4 = if new.src.is_v4() {
            ETH + 20
        } else if packet.has_fragment_header() {
            ETH + 40 + 8
        } else {
            ETH + 40
        };
        if !self.readdress(packet) || !self.put(l4, new.ports) {
            return false;
        }
        let (field, mangled) =
            if packet.proto == TCP { (l4 + 16, 0) } else { (l4 + 6, BPF_F_MARK_MANGLED_0 as u64) };
        let v6 = if new.src.is_v4() { 0 } else { csum_v6 };
        let pseudo = BPF_F_PSEUDO_HDR as u64 | mangled | v6 as u64;
        // The helper and not a plain write: only it knows whether the checksum is a sum yet, or is to be
        // completed by the device that sends the packet.
        // SAFETY: the context is valid, and the helper checks the offset.
        unsafe {
            if bpf_l4_csum_replace(self.0, field as u32, 0, addresses as u64, pseudo) != 0 {
                return false;
            }
            let ports = csum::diff(old.ports, new.ports);
            old.ports == new.ports || bpf_l4_csum_replace(self.0, field as u32, 0, ports as u64, mangled) == 0
        }
    }

    /// Gives it the addresses only: all that a later fragment has.
    #[inline(always)]
    pub(crate) fn readdress(&self, packet: &Packet) -> bool {
        let (old, new) = (&packet.tuple, &packet.sent);
        if !new.src.is_v4() {
            return self.put(ETH + 8, new.src.0) && self.put(ETH + 24, new.dst.0);
        }
        let addresses = csum::add(csum::diff_addr(&old.src, &new.src), csum::diff_addr(&old.dst, &new.dst));
        let Some(header) = self.frame().at::<u16>(ETH + 10) else { return false };
        self.put(ETH + 10, csum::update(header, addresses))
            && self.put(ETH + 12, [new.src.0[3], new.dst.0[3]])
    }

    /// The same for an ICMP error and the packet that it quotes.
    ///
    /// What the quoted transport header says of its checksum stays: nobody can check it, for the packet is cut off.
    #[inline(always)]
    pub(crate) fn requote(&self, packet: &Packet) -> bool {
        let (old, new) = (&packet.tuple, &packet.sent);
        let (was, is) = (&packet.quoted, &packet.quoted_sent);
        let outer = csum::add(csum::diff_addr(&old.src, &new.src), csum::diff_addr(&old.dst, &new.dst));
        let inner = csum::add(csum::diff_addr(&was.src, &is.src), csum::diff_addr(&was.dst, &is.dst));
        let ports = csum::diff(was.ports, is.ports);
        let frame = self.frame();
        if new.src.is_v4() {
            const QUOTE: usize = ETH + 20 + 8;
            let Some(header) = frame.at::<u16>(ETH + 10) else { return false };
            let Some(quoted) = frame.at::<u16>(QUOTE + 10) else { return false };
            let Some(message) = frame.at::<u16>(ETH + 20 + 2) else { return false };
            // The quoted header's checksum balances its addresses.
            self.put(ETH + 10, csum::update(header, outer))
                && self.put(ETH + 12, [new.src.0[3], new.dst.0[3]])
                && self.put(QUOTE + 10, csum::update(quoted, inner))
                && self.put(QUOTE + 12, [is.src.0[3], is.dst.0[3]])
                && self.put(QUOTE + 20, is.ports)
                && self.put(ETH + 20 + 2, csum::update(message, ports))
        } else {
            const QUOTE: usize = ETH + 40 + 8;
            let Some(message) = frame.at::<u16>(ETH + 40 + 2) else { return false };
            let all = csum::add(outer, csum::add(inner, ports));
            self.put(ETH + 8, new.src.0)
                && self.put(ETH + 24, new.dst.0)
                && self.put(QUOTE + 8, is.src.0)
                && self.put(QUOTE + 24, is.dst.0)
                && self.put(QUOTE + 40, is.ports)
                && self.put(ETH + 40 + 2, csum::update(message, all))
        }
    }

    /// Gives the frame other Ethernet addresses.
    #[inline(always)]
    pub(crate) fn address(&self, to: Mac, from: Mac) -> bool {
        self.put(0, to) && self.put(6, from)
    }

    /// Has it be taken for one that was sent to this node.
    #[inline(always)]
    pub(crate) fn for_us(&self) {
        // SAFETY: a field that may be read; it fails for types that cannot come in by a device. Most packets are
        // of the right one, and the call costs more than to look.
        unsafe {
            if (*self.0).pkt_type != PACKET_HOST {
                bpf_skb_change_type(self.0, PACKET_HOST);
            }
        }
    }

    /// Whether it was sent to this node, and not only seen by it.
    #[inline(always)]
    pub(crate) fn is_for_us(&self) -> bool {
        // SAFETY: a field that may be read.
        unsafe { (*self.0).pkt_type == PACKET_HOST }
    }

    /// From which underlay address it was tunnelled, and with which key. Only of the family that it came over does the
    /// kernel tell.
    #[inline(always)]
    pub(crate) fn tunnelled(&self) -> Option<(Addr16, u32)> {
        // SAFETY: zero is a valid key.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        // SAFETY: the size is that of the key.
        let mut is_over = |flags| unsafe {
            bpf_skb_get_tunnel_key(self.0, &raw mut key, size_of::<bpf_tunnel_key>() as u32, flags) == 0
        };
        let v4 = is_over(0);
        if !v4 && !is_over(BPF_F_TUNINFO_IPV6 as u64) {
            return None;
        }
        // SAFETY: the family says which of both was written.
        let remote = unsafe {
            if v4 {
                Addr16::from_word(key.__bindgen_anon_1.remote_ipv4.to_be())
            } else {
                Addr16(key.__bindgen_anon_1.remote_ipv6)
            }
        };
        Some((remote, key.tunnel_id))
    }

    /// Into the tunnel to a node. The verdict for the kernel.
    #[inline(always)]
    pub(crate) fn tunnel(&self, peer: &Peer, vni: u32, device: u32) -> Option<i64> {
        // SAFETY: zero is a valid key.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        key.tunnel_id = vni;
        key.tunnel_ttl = TTL;
        let mut flags = BPF_F_ZERO_CSUM_TX as u64;
        if peer.addr.is_v4() {
            key.__bindgen_anon_1.remote_ipv4 = u32::from_be(peer.addr.0[3]);
        } else {
            key.__bindgen_anon_1.remote_ipv6 = peer.addr.0;
            flags |= BPF_F_TUNINFO_IPV6 as u64;
        }
        // SAFETY: the size is that of the key.
        unsafe {
            if bpf_skb_set_tunnel_key(self.0, &raw mut key, size_of::<bpf_tunnel_key>() as u32, flags) != 0 {
                return None;
            }
            Some(bpf_redirect(device, 0))
        }
    }

    /// Into the namespace at the other end of a veth.
    #[inline(always)]
    pub(crate) fn into_task(&self, device: u32) -> i64 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_redirect_peer(device, 0) }
    }

    /// Has a SYN announce no larger segments than fit into the tunnel. What cannot be read stays as it is.
    #[inline(never)]
    pub(crate) fn clamp(self, packet: &Packet, mtu: u32) {
        let l4 = u32::from(packet.l4) & (Frame::FAR - 1) as u32;
        let mut head = 0_u8;
        let mut options = [0_u8; mss::OPTIONS];
        // SAFETY: the context is valid, the helper checks the offset, and the buffer has as many bytes.
        if unsafe { bpf_skb_load_bytes(self.0.cast(), l4 + 12, (&raw mut head).cast(), 1) } != 0 {
            return;
        }
        let len = (u32::from(head) >> 4 << 2).wrapping_sub(20);
        if len == 0 || len > 40 {
            return;
        }
        // SAFETY: as above.
        if unsafe { bpf_skb_load_bytes(self.0.cast(), l4 + 20, options.as_mut_ptr().cast(), len) } != 0 {
            return;
        }
        let headers = if packet.tuple.src.is_v4() { 20 + 20 } else { 40 + 20 };
        let most = mtu.wrapping_sub(headers) as u16;
        let Some(at) = mss::find(&options, len as usize, most) else { return };
        let old = [options[at % mss::OPTIONS], options[(at + 1) % mss::OPTIONS]];
        let new = most.to_be_bytes();
        // Words begin at even bytes.
        let word = |[a, b]: [u8; 2]| u32::from(u16::from_ne_bytes(if at % 2 == 0 { [a, b] } else { [b, a] }));
        let diff = csum::diff(word(old), word(new));
        // SAFETY: the context is valid, and the helpers check the offsets.
        unsafe {
            if bpf_skb_store_bytes(self.0, l4 + 20 + at as u32, new.as_ptr().cast(), 2, 0) == 0 {
                bpf_l4_csum_replace(self.0, l4 + 16, 0, diff as u64, 0);
            }
        }
    }

    /// Out by whichever device leads to the receiver, as the routing table says.
    #[inline(never)]
    pub(crate) fn by_route(self, packet: &Packet) -> i64 {
        // SAFETY: zero is a valid question.
        let mut route: Route = unsafe { core::mem::zeroed() };
        let (src, dst) = (&packet.sent.src.0, &packet.sent.dst.0);
        route.ifindex = packet.device;
        if packet.sent.dst.is_v4() {
            route.family = AF_INET;
            (route.__bindgen_anon_3.ipv4_src, route.__bindgen_anon_4.ipv4_dst) = (src[3], dst[3]);
        } else {
            route.family = AF_INET6;
            (route.__bindgen_anon_3.ipv6_src, route.__bindgen_anon_4.ipv6_dst) = (*src, *dst);
        }
        let size = size_of::<Route>() as i32;
        // SAFETY: the context is valid, and the size is that of the question.
        let answer = unsafe { bpf_fib_lookup(self.0.cast(), &raw mut route, size, 0) };
        if answer == i64::from(BPF_FIB_LKUP_RET_SUCCESS) || answer == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH) {
            return self.to_neighbour(route.ifindex);
        }
        TC_ACT_SHOT.into()
    }

    /// Out by a device, to the neighbour that the routing table names.
    #[inline(always)]
    pub(crate) fn to_neighbour(&self, device: u32) -> i64 {
        // SAFETY: without parameters the helper looks the neighbour up.
        unsafe { bpf_redirect_neigh(device, core::ptr::null_mut(), 0, 0) }
    }

    /// Out by a device as it is.
    #[inline(always)]
    pub(crate) fn out(&self, device: u32) -> i64 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_redirect(device, 0) }
    }

    /// In by the loopback device, the only one by which `::1` may come.
    #[inline(always)]
    pub(crate) fn into_loopback(&self) -> i64 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_redirect(LOOPBACK, BPF_F_INGRESS as u64) }
    }
}
