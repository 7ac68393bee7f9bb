//! A block of IP addresses (Envoy: `CidrRange`).

use core::{fmt, net::IpAddr};

/// A block of IP addresses. An IPv4 address is one however it is written, so `::ffff:10.0.0.1` lies in `10.0.0.0/8`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    /// Canonical, and zero behind the prefix.
    first: IpAddr,
    /// At most as many bits as the address has.
    prefix_bits: u8,
}

/// A prefix that is longer than its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a prefix of {prefix_bits} bits is longer than an address of {address_bits}")]
pub struct PrefixTooLong {
    /// The prefix.
    pub prefix_bits: u32,
    /// What the address has.
    pub address_bits: u8,
}

/// Bits before an IPv4 address that is written as an IPv6 one (RFC 4291 §2.5.5.2).
const MAPPED_BITS: u8 = 96;

impl Cidr {
    /// The block of all addresses that begin with the first `prefix_bits` of `address`; what follows them does not count.
    ///
    /// # Errors
    /// When the address has fewer bits.
    pub fn new(address: IpAddr, prefix_bits: u32) -> Result<Cidr, PrefixTooLong> {
        let address_bits = bits(address);
        let fits = u8::try_from(prefix_bits).ok().filter(|prefix| *prefix <= address_bits);
        let mut prefix = fits.ok_or(PrefixTooLong { prefix_bits, address_bits })?;
        let mut address = address;
        if address != address.to_canonical() && prefix >= MAPPED_BITS {
            (address, prefix) = (address.to_canonical(), prefix - MAPPED_BITS);
        }
        Ok(Cidr { first: masked(address, prefix), prefix_bits: prefix })
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        bits(address) == bits(self.first) && masked(address, self.prefix_bits) == self.first
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix_bits)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with zeroes behind its first `prefix` bits.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or_default();
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or_default();
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_block_takes_what_begins_as_it_does_in_its_own_family() {
        for (block, bits, shown, inside, outside) in [
            ("10.1.2.3", 8, "10.0.0.0/8", &["10.0.0.0", "10.255.255.255"][..], &["11.0.0.0", "9.9.9.9"][..]),
            ("10.1.2.3", 32, "10.1.2.3/32", &["10.1.2.3", "::ffff:10.1.2.3"], &["10.1.2.2", "::10.1.2.3"]),
            ("10.1.2.3", 31, "10.1.2.2/31", &["10.1.2.2", "10.1.2.3"], &["10.1.2.1", "10.1.2.4"]),
            ("1.2.3.4", 0, "0.0.0.0/0", &["255.255.255.255", "::ffff:0:0"], &["::1", "::"]),
            ("2001:db8::1", 32, "2001:db8::/32", &["2001:db8:ffff::"], &["2001:db9::", "1.2.3.4"]),
            ("::1", 128, "::1/128", &["::1"], &["::", "::2", "0.0.0.1"]),
            ("::", 0, "::/0", &["ffff::", "::1"], &["1.2.3.4", "::ffff:1.2.3.4"]),
            ("::ffff:10.1.2.3", 104, "10.0.0.0/8", &["10.9.9.9", "::ffff:10.9.9.9"], &["11.0.0.0"]),
        ] {
            let block = Cidr::new(block.parse().unwrap(), bits).unwrap();
            assert_eq!(block.to_string(), shown);
            for address in inside {
                assert!(block.contains(address.parse().unwrap()), "{address} in {shown}");
            }
            for address in outside {
                assert!(!block.contains(address.parse().unwrap()), "{address} not in {shown}");
            }
        }
    }

    #[test]
    fn a_prefix_is_no_longer_than_its_address() {
        for (address, bits, address_bits) in [("1.2.3.4", 33, 32), ("::1", 129, 128), ("::1", u32::MAX, 128)]
        {
            let refused = PrefixTooLong { prefix_bits: bits, address_bits };
            assert_eq!(Cidr::new(address.parse().unwrap(), bits), Err(refused));
        }
    }
}
