//! A part of the loopback network for the pods of one cluster, so that clusters side by side (two
//! checkouts, tests in parallel) do not meet at an address.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// The kubelet's port: no pod of the demonstration listens there.
const PORT: u16 = 10_250;
/// Bits of a network's prefix: 4,096 addresses each.
const PREFIX: u8 = 20;
/// Bits of its halves' prefixes.
const HALF: u8 = PREFIX + 1;
/// Networks to choose from: 127.32.0.0 to 127.223.240.0.
const NETWORKS: u32 = 192 * 16;

/// A network that is this cluster's as long as the value lives: it holds a port of the first address, which
/// the kernel takes back when the process ends.
#[derive(Debug)]
pub struct Network {
    first: Ipv4Addr,
    _claim: TcpListener,
}

impl Network {
    /// Claims a free network.
    ///
    /// # Errors
    ///
    /// When all are taken, or the machine has no such addresses.
    pub fn claim() -> io::Result<Self> {
        // Different processes begin their search in different places.
        let start = std::process::id().wrapping_mul(2_654_435_761);
        let mut problem = io::Error::from(io::ErrorKind::AddrInUse);
        for offset in 0..NETWORKS {
            let first = address(start.wrapping_add(offset) % NETWORKS);
            match TcpListener::bind((first, PORT)) {
                Ok(claim) => return Ok(Self { first, _claim: claim }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => problem = error,
                Err(error) => return Err(error),
            }
        }
        Err(problem)
    }

    /// The half for pods: its first address and the prefix's length.
    pub fn pods(&self) -> (Ipv4Addr, u8) {
        (self.first, HALF)
    }

    /// The half for Services: its first address and the prefix's length.
    pub fn services(&self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::from(u32::from(self.first) + (1 << (32 - u32::from(HALF)))), HALF)
    }
}

fn address(index: u32) -> Ipv4Addr {
    let base = u32::from(Ipv4Addr::new(127, 32, 0, 0));
    Ipv4Addr::from(base + (index << (32 - u32::from(PREFIX))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_do_not_meet() {
        let one = Network::claim().unwrap();
        let two = Network::claim().unwrap();
        assert_ne!(one.pods(), two.pods());
        assert_ne!(one.pods(), one.services());
        assert_eq!(address(0), Ipv4Addr::new(127, 32, 0, 0));
        assert_eq!(address(1), Ipv4Addr::new(127, 32, 16, 0));
        assert_eq!(address(NETWORKS - 1), Ipv4Addr::new(127, 223, 240, 0));
    }
}
