//! Which pod addresses are taken. Pure; what is taken is written down in the pods' folders.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The addresses of the pod network.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The second address (the first is the bridge's).
    first: u32,
    /// The last before the broadcast address.
    last: u32,
    next: u32,
    taken: BTreeSet<u32>,
}

impl Addresses {
    /// All of `network`/`prefix` but the network's own, the bridge's and the broadcast address.
    pub fn of((network, prefix): (Ipv4Addr, u8)) -> Self {
        let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let base = u32::from(network) & !hosts;
        let (first, last) = (base + 2, (base + hosts).saturating_sub(1));
        Self {
            first,
            last,
            next: first,
            taken: BTreeSet::new(),
        }
    }

    /// Marks an address of an earlier daemon's pod as taken.
    pub fn reserve(&mut self, address: Ipv4Addr) {
        self.taken.insert(address.into());
    }

    /// A free address. They go round: one that was just given back may still be in use by the kernel, which takes
    /// interfaces away in its own time.
    pub fn take(&mut self) -> Option<Ipv4Addr> {
        let all = (self.next..=self.last).chain(self.first..self.next);
        let free = all.into_iter().find(|address| !self.taken.contains(address))?;
        self.taken.insert(free);
        self.next = if free >= self.last { self.first } else { free + 1 };
        Some(free.into())
    }

    /// Gives an address back.
    pub fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_before_one_is_used_again() {
        let mut addresses = Addresses::of((Ipv4Addr::new(10, 244, 0, 0), 29));
        let all: Vec<_> = std::iter::from_fn(|| addresses.take())
            .map(|ip| ip.octets()[3])
            .collect();
        assert_eq!(all, [2, 3, 4, 5, 6]);
        addresses.release(Ipv4Addr::new(10, 244, 0, 3));
        assert_eq!(addresses.take(), Some(Ipv4Addr::new(10, 244, 0, 3)));
    }

    #[test]
    fn a_released_address_waits_for_its_turn() {
        let mut addresses = Addresses::of((Ipv4Addr::new(10, 244, 0, 1), 24));
        let first = addresses.take().unwrap();
        addresses.release(first);
        assert_eq!(addresses.take(), Some(Ipv4Addr::new(10, 244, 0, 3)));
    }

    #[test]
    fn reserved_addresses_are_not_given_out() {
        let mut addresses = Addresses::of((Ipv4Addr::new(10, 244, 0, 0), 24));
        addresses.reserve(Ipv4Addr::new(10, 244, 0, 2));
        assert_eq!(addresses.take(), Some(Ipv4Addr::new(10, 244, 0, 3)));
    }
}
