//! The addresses that a task with network may reach.
//!
//! The launcher asks for each connection, and the settings are checked with it. Addresses of the
//! machine and its neighbours are denied unless a rule names them: loopback and the machine's other
//! addresses, link-local addresses (clouds serve credentials there), private and shared ranges, and
//! addresses that are not of one host.
//!
//! Invariant: an address that stands for another one, as IPv4 in IPv6 does, is judged by that one.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// The port of servers of names.
const DOMAIN: u16 = 53;

/// Denied unless named. The address at Azure is public, and answers as a link-local one elsewhere.
const DENIED_V4: [(Ipv4Addr, u8); 13] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
const DENIED_V6: [(Ipv6Addr, u8); 7] = [
    // `::` and `::1`, and IPv4 in a form that is no longer used.
    (Ipv6Addr::UNSPECIFIED, 96),
    (Ipv6Addr::new(0x64, 0xFF9B, 1, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64),
    (Ipv6Addr::new(0xFC00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xFEC0, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xFF00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// Addresses that a task may reach although they are the machine's own or a neighbour's:
/// `127.0.0.1:5432`, `10.0.0.0/8`, `[::1]:8080`, `fd00::/8`, `[fd00::/8]:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkRule {
    network: IpAddr,
    prefix: u8,
    port: Option<u16>,
}

impl NetworkRule {
    fn allows(&self, address: IpAddr, port: u16) -> bool {
        self.port.is_none_or(|own| own == port) && covers(self.network, self.prefix, address)
    }
}

impl FromStr for NetworkRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no address or network, such as `127.0.0.1:5432`, `10.0.0.0/8` or \
                 `[::1]:8080`"
            )
        };
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            match port {
                "" => (host, None),
                port => (host, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            }
        } else {
            match text.split_once(':') {
                // More than one colon is an IPv6 address without a port.
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (text, None),
            }
        };
        let port = port.map(str::parse).transpose().map_err(|_| wrong())?;
        let (address, prefix) = match host.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (host, None),
        };
        let network: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map(str::parse).transpose().map_err(|_| wrong())?.unwrap_or(most);
        if prefix > most {
            return Err(wrong());
        }
        Ok(Self { network, prefix, port })
    }
}

impl TryFrom<String> for NetworkRule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<NetworkRule> for String {
    fn from(rule: NetworkRule) -> Self {
        rule.to_string()
    }
}

impl fmt::Display for NetworkRule {
    /// As it is parsed.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, prefix, port } = self;
        let is_one = *prefix == if network.is_ipv4() { 32 } else { 128 };
        let host = if is_one { network.to_string() } else { format!("{network}/{prefix}") };
        match port {
            Some(port) if network.is_ipv6() => write!(out, "[{host}]:{port}"),
            Some(port) => write!(out, "{host}:{port}"),
            None => out.write_str(&host),
        }
    }
}

/// One address range and port that tasks of a jail may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReachRules {
    rules: Vec<NetworkRule>,
    nameservers: Vec<IpAddr>,
}

impl ReachRules {
    pub(crate) fn new(rules: &[NetworkRule], nameservers: &[IpAddr]) -> Self {
        let nameservers = nameservers.iter().map(IpAddr::to_canonical).collect();
        Self { rules: rules.to_vec(), nameservers }
    }

    /// True if a task may connect to `address`.
    pub(crate) fn allows(&self, address: SocketAddr) -> bool {
        let (ip, port) = (address.ip(), address.port());
        let real = real(ip);
        let is_named = |address| self.rules.iter().any(|rule| rule.allows(address, port));
        if is_named(ip) || is_named(real) {
            return true;
        }
        // Without them no name could be resolved.
        if port == DOMAIN && self.nameservers.contains(&real) {
            return true;
        }
        !is_denied(real) && !own_addresses().contains(&real)
    }
}

/// The address that is reached if this one embeds another.
fn real(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address.to_canonical() else { return address.to_canonical() };
    let four = |high: u16, low: u16| {
        let bits = (u32::from(high) << 16) | u32::from(low);
        IpAddr::V4(Ipv4Addr::from_bits(bits))
    };
    match six.segments() {
        // Translated to IPv4 by a gateway, and carried in IPv4.
        [0x64, 0xFF9B, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => four(high, low),
        _ => six.into(),
    }
}

fn is_denied(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => {
            DENIED_V4.iter().any(|(net, prefix)| covers((*net).into(), *prefix, address))
        }
        IpAddr::V6(_) => {
            DENIED_V6.iter().any(|(net, prefix)| covers((*net).into(), *prefix, address))
        }
    }
}

fn covers(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let rest = 32 - u32::from(prefix.min(32));
            let bits = u32::from(network) ^ u32::from(address);
            bits.checked_shr(rest).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let rest = 128 - u32::from(prefix.min(128));
            let bits = u128::from(network) ^ u128::from(address);
            bits.checked_shr(rest).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Addresses of this machine: what listens on all of them is reached by each.
fn own_addresses() -> Vec<IpAddr> {
    let found = nix::ifaddrs::getifaddrs().into_iter().flatten();
    found
        .filter_map(|interface| {
            let address = interface.address?;
            let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
            four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(rules: &[&str]) -> ReachRules {
        let rules: Vec<_> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        ReachRules::new(&rules, &["127.0.0.53".parse().unwrap()])
    }

    fn allows(rules: &[&str], address: &str) -> bool {
        reach(rules).allows(address.parse().unwrap())
    }

    /// What is the machine's own or a neighbour's is denied, in whatever form it is written.
    #[test]
    fn what_is_near_is_denied() {
        for address in [
            "127.0.0.1:80",
            "127.8.9.10:80",
            "0.0.0.0:80",
            "10.1.2.3:80",
            "100.100.100.200:80",
            "168.63.129.16:80",
            "169.254.169.254:80",
            "172.16.0.1:80",
            "172.31.255.255:80",
            "192.168.1.1:80",
            "192.0.0.192:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "127.0.0.53:54",
            "[::1]:80",
            "[::]:80",
            "[::127.0.0.1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::7f00:1]:80",
            "[64:ff9b:1::1]:80",
            "[2002:a00:1::1]:80",
            "[fd00:ec2::254]:80",
            "[fe80::1]:80",
            "[fec0::1]:80",
            "[ff02::1]:80",
        ] {
            assert!(!allows(&[], address), "{address}");
        }
        for own in own_addresses() {
            assert!(!reach(&[]).allows(SocketAddr::new(own, 80)), "{own}");
        }
    }

    /// What is far is reached, and what is near where it is named, at that port.
    #[test]
    fn what_is_far_or_named_is_reached() {
        for address in [
            "1.1.1.1:443",
            "172.32.0.1:80",
            "169.253.255.255:80",
            "[2606:4700::1111]:443",
            "[64:ff9b::101:101]:443",
            "127.0.0.53:53",
            "[::ffff:127.0.0.53]:53",
        ] {
            assert!(allows(&[], address), "{address}");
        }
        let rules = ["127.0.0.1:5432", "10.0.0.0/8", "[::1]:8080", "fd00::/8", "[fe80::/10]:443"];
        for (address, allowed) in [
            ("127.0.0.1:5432", true),
            ("[::ffff:127.0.0.1]:5432", true),
            ("127.0.0.1:5433", false),
            ("127.0.0.2:5432", false),
            ("10.255.0.1:1", true),
            ("11.0.0.1:1", true),
            ("[::1]:8080", true),
            ("[::1]:80", false),
            ("[fd12::1]:80", true),
            ("[fc12::1]:80", false),
            ("[fe80::1]:443", true),
            ("[fe80::1]:80", false),
        ] {
            assert_eq!(allows(&rules, address), allowed, "{address}");
        }
    }

    /// A rule is written as it was read, and nonsense is no rule.
    #[test]
    fn rules_are_read_and_written() {
        for rule in [
            "127.0.0.1",
            "127.0.0.1:5432",
            "10.0.0.0/8",
            "10.0.0.0/8:443",
            "::1",
            "[::1]:8080",
            "fd00::/8",
            "[fd00::/8]:443",
            "0.0.0.0/0",
        ] {
            let parsed: NetworkRule = rule.parse().unwrap();
            assert_eq!(parsed.to_string(), rule);
        }
        for rule in [
            "",
            "localhost",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/x",
            "1.2.3.4:x",
            "1.2.3.4:70000",
            "[::1",
            "[::1]x",
        ] {
            let error = rule.parse::<NetworkRule>().unwrap_err();
            assert!(error.contains("is no address or network"), "{rule}: {error}");
        }
        assert_eq!("[::1]".parse::<NetworkRule>().unwrap().to_string(), "::1");
    }
}
