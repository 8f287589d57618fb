//! How many connections each address has, so that none takes all of them. No I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::lock::lock;

/// The connections of each address.
#[derive(Debug, Clone)]
pub struct Peers {
    most: usize,
    open: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// One connection of an address; it ends with this.
#[derive(Debug)]
pub struct Admission {
    address: IpAddr,
    open: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

impl Peers {
    /// Each has so many at the most.
    pub fn new(most: usize) -> Peers {
        Peers { most, open: Arc::default() }
    }

    /// Takes in a connection, unless its address has too many. This machine may have all: from there a sidecar hands on
    /// what others send.
    pub fn admit(&self, address: IpAddr) -> Option<Admission> {
        let address = address.to_canonical();
        let mut open = lock(&self.open);
        let count = open.entry(address).or_default();
        if *count >= self.most && !address.is_loopback() {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Admission { address, open: Arc::clone(&self.open) })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        let left = open.get(&self.address).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            open.remove(&self.address);
        } else {
            open.insert(self.address, left);
        }
    }
}
