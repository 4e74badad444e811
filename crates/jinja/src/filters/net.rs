//! Addresses and networks: `ansible.utils.ipaddr` and its family, as netaddr 0.8 answers.
//! An unknown query, or a spelling that only netaddr guesses at, is an error, never a guess.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use minijinja::value::Value;

use super::Filter;
use crate::fault::{self, Result};
use crate::python;
use crate::runtime::Call;
use crate::value::{self, View, view};

pub const FILTERS: &[(&str, Filter)] = &[
    ("cidr_merge", cidr_merge),
    ("hwaddr", hwaddr),
    ("ip4_hex", |call| {
        let address: Ipv4Addr = call.input()?.parse().map_err(|_| no_address())?;
        let octets = address.octets().map(|octet| format!("{octet:02x}"));
        Ok(Value::from(octets.join(&call.text_or(
            1,
            "delimiter",
            "",
        )?)))
    }),
    ("ipaddr", |call| filter(call, None)),
    ("ipmath", |call| {
        let (net, _) = parse(&call.input()?)?.ok_or_else(no_address)?;
        let amount = call.integer(1, "amount")?.unwrap_or(0);
        let sum = net
            .value
            .checked_add_signed(amount)
            .filter(|sum| *sum <= net.all());
        match sum {
            Some(sum) => Ok(Value::from(net.show(sum))),
            None => fault::fail("an address beyond the last one"),
        }
    }),
    ("ipsubnet", ipsubnet),
    ("ipv4", |call| filter(call, Some(4))),
    ("ipv6", |call| filter(call, Some(6))),
    ("ipwrap", |call| {
        let wrap = |item: &Value| -> Value {
            match ask(item, "", None) {
                Ok(found) if found.is_true() => ask(&found, "wrap", None).unwrap_or(found),
                _ => item.clone(),
            }
        };
        Ok(match python::sequence(call.value()) {
            Some(items) => value::list(items.iter().map(wrap).collect()),
            None => wrap(call.value()),
        })
    }),
    ("macaddr", hwaddr),
    ("network_in_network", |call| {
        let (whole, part) = (call.input()?, call.text(1, "test")?);
        Ok(Value::from(within(&part, (&whole, false))?))
    }),
    ("network_in_usable", |call| {
        let (whole, part) = (call.input()?, call.text(1, "test")?);
        Ok(Value::from(within(&part, (&whole, true))?))
    }),
    ("next_nth_usable", |call| nth_usable(call, 1)),
    ("nthhost", |call| {
        let Some((net, _)) = parse(&call.input()?)? else {
            return Ok(Value::from(false));
        };
        let nth = call.arg(1, "query").map(|nth| python::text(&nth));
        let nth = nth.and_then(|nth| python::parse_int(&nth, 10));
        Ok(nth
            .and_then(|nth| net.at(nth))
            .map_or_else(|| Value::from(false), Value::from))
    }),
    ("previous_nth_usable", |call| nth_usable(call, -1)),
    ("reduce_on_network", |call| {
        let network = call.text(1, "network")?;
        let mut out = Vec::new();
        for item in call.items()? {
            if within(&python::defined_text(&item)?, (&network, false))? {
                out.push(item);
            }
        }
        Ok(value::list(out))
    }),
    ("slaac", |call| {
        let (Some((net, _)), Some(mac)) = (
            parse(&call.input()?)?,
            octets(&call.text_or(1, "query", "")?),
        ) else {
            return Ok(Value::from(false));
        };
        if net.version != 6 {
            return Ok(Value::from(false));
        }
        let (high, low) = (u128::from(mac >> 24), u128::from(mac & 0xff_ffff));
        let eui = (high << 40 | 0xff_fe00_0000 | low) ^ (2 << 56);
        Ok(Value::from(net.show(net.first() + eui)))
    }),
];

fn no_address() -> minijinja::Error {
    fault::error("what is no IP address")
}

/// netaddr's `IPNetwork`: an address with the length of its prefix.
#[derive(Clone, Copy)]
struct Net {
    version: u8,
    value: u128,
    prefix: u32,
}

impl Net {
    fn width(self) -> u32 {
        if self.version == 4 { 32 } else { 128 }
    }

    fn all(self) -> u128 {
        u128::MAX >> (128 - self.width())
    }

    fn host_mask(self) -> u128 {
        self.all().checked_shr(self.prefix).unwrap_or(0)
    }

    fn mask(self) -> u128 {
        self.all() & !self.host_mask()
    }

    fn first(self) -> u128 {
        self.value & self.mask()
    }

    fn last(self) -> u128 {
        self.value | self.host_mask()
    }

    /// Addresses in it; that of `::/0` does not fit.
    fn size(self) -> Option<u128> {
        self.host_mask().checked_add(1)
    }

    fn is_single(self) -> bool {
        self.host_mask() == 0
    }

    fn is_network(self) -> bool {
        self.value == self.first()
    }

    /// A /31 or /32 has none; IPv6 calls the last address so.
    fn broadcast(self) -> Option<u128> {
        (self.version == 6 || self.host_mask() > 1).then(|| self.last())
    }

    fn usable(self) -> (u128, u128) {
        match self.host_mask() {
            0 | 1 => (self.first(), self.last()),
            _ => (self.first() + 1, self.last() - 1),
        }
    }

    fn show(self, value: u128) -> String {
        if self.version == 4 {
            return Ipv4Addr::from(value as u32).to_string();
        }
        // The C library's way with addresses that hold an IPv4 address.
        match value >> 16 {
            high @ 1..=0xffff => {
                format!("::{}", Ipv4Addr::from((high << 16 | value & 0xffff) as u32))
            }
            _ => Ipv6Addr::from(value).to_string(),
        }
    }

    fn cidr(self, value: u128) -> String {
        format!("{}/{}", self.show(value), self.prefix)
    }

    /// The address at an index, from the end where that is negative.
    fn at(self, index: i128) -> Option<String> {
        let offset = match u128::try_from(index) {
            Ok(index) => index,
            Err(_) => self.host_mask().checked_sub(index.unsigned_abs() - 1)?,
        };
        (offset <= self.host_mask()).then(|| self.show(self.first() + offset))
    }

    fn is_in(self, others: &[(&str, u32)]) -> bool {
        others.iter().any(|(address, prefix)| {
            let other = match address.parse() {
                Ok(IpAddr::V4(address)) => Net {
                    version: 4,
                    value: u32::from(address).into(),
                    prefix: *prefix,
                },
                Ok(IpAddr::V6(address)) => Net {
                    version: 6,
                    value: address.into(),
                    prefix: *prefix,
                },
                Err(_) => return false,
            };
            other.contains(self)
        })
    }

    fn contains(self, other: Net) -> bool {
        self.version == other.version
            && self.first() <= other.first()
            && other.last() <= self.last()
    }

    fn alone(self) -> Net {
        Net {
            prefix: self.width(),
            ..self
        }
    }
}

/// An address or network, and whether it was written as a network.
fn parse(text: &str) -> Result<Option<(Net, bool)>> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let mut net = match address.parse() {
        Ok(IpAddr::V4(address)) => Net {
            version: 4,
            value: u32::from(address).into(),
            prefix: 32,
        },
        Ok(IpAddr::V6(address)) => Net {
            version: 6,
            value: address.into(),
            prefix: 128,
        },
        Err(_) => {
            // `10.1/16` and `010.1.2.3` mean something to netaddr.
            let guessed = !address.is_empty()
                && address.chars().all(|c| c.is_ascii_digit() || c == '.')
                && address.split('.').count() <= 4
                && address
                    .split('.')
                    .all(|part| part.parse::<u8>().is_ok() || part.is_empty());
            if guessed {
                return fault::fail("an IP address that is not written out");
            }
            return Ok(None);
        }
    };
    if let Some(prefix) = prefix {
        net.prefix = match prefix.parse::<u32>() {
            Ok(length) if length <= net.width() => length,
            Ok(_) => return Ok(None),
            Err(_) => match (prefix.parse::<Ipv4Addr>(), net.version) {
                (Ok(mask), 4) => {
                    let mask = u32::from(mask);
                    if mask.leading_ones() + mask.trailing_zeros() >= 32 {
                        mask.leading_ones()
                    } else if mask.leading_zeros() + mask.trailing_ones() >= 32 {
                        mask.leading_zeros()
                    } else {
                        return Ok(None);
                    }
                }
                _ => return Ok(None),
            },
        };
    }
    Ok(Some((net, prefix.is_some())))
}

fn filter(call: &mut Call, version: Option<u8>) -> Result<Value> {
    if matches!(
        view(call.value()),
        View::None | View::Float(_) | View::Dict(_)
    ) {
        return fault::fail("a value that is neither text, number nor list");
    }
    let query = call.text_or(1, "query", "")?;
    let version = match call.integer(2, "version")? {
        Some(given) => u8::try_from(given).ok(),
        None => version,
    };
    ask(call.value(), &query, version)
}

fn ask(input: &Value, query: &str, version: Option<u8>) -> Result<Value> {
    if let Some(items) = python::sequence(input) {
        let mut out = Vec::new();
        for item in items {
            let answer = ask(&item, query, version)?;
            if answer.is_true() {
                out.push(answer);
            }
        }
        return Ok(value::list(out));
    }
    let no = || Ok(Value::from(false));
    if !input.is_true() || matches!(view(input), View::Bool(_)) {
        return no();
    }
    let text = python::defined_text(input)?;
    let (net, is_network, text) = if text.chars().all(|c| c.is_ascii_digit()) {
        let Ok(number) = text.parse::<u128>() else {
            return no();
        };
        let is_v4 = number <= u128::from(u32::MAX) && version != Some(6);
        let net = Net {
            version: if is_v4 { 4 } else { 6 },
            value: number,
            prefix: if is_v4 { 32 } else { 128 },
        };
        (net, false, net.cidr(number))
    } else {
        match parse(&text)? {
            Some((net, is_network)) => (net, is_network, text),
            None => return no(),
        }
    };
    if version.is_some_and(|version| version != net.version) {
        return no();
    }
    answer(net, is_network, &text, query)
}

/// netaddr's `IPV4_PRIVATE` and `IPV6_PRIVATE`, with what is link-local.
const PRIVATE: [(&str, u32); 11] = [
    ("10.0.0.0", 8),
    ("100.64.0.0", 10),
    ("172.16.0.0", 12),
    ("192.0.0.0", 24),
    ("192.168.0.0", 16),
    ("198.18.0.0", 15),
    ("239.0.0.0", 8),
    ("169.254.0.0", 16),
    ("fc00::", 7),
    ("fec0::", 10),
    ("fe80::", 10),
];
const MULTICAST: [(&str, u32); 2] = [("224.0.0.0", 4), ("ff00::", 8)];
const LOOPBACK: [(&str, u32); 2] = [("127.0.0.0", 8), ("::1", 128)];
const LINK_LOCAL: [(&str, u32); 2] = [("169.254.0.0", 16), ("fe80::", 10)];

fn answer(net: Net, is_network: bool, text: &str, query: &str) -> Result<Value> {
    let given = |holds: bool| {
        if holds {
            Value::from(text)
        } else {
            Value::from(())
        }
    };
    let shown = |holds: bool, text: String| {
        if holds {
            Value::from(text)
        } else {
            Value::from(())
        }
    };
    let host = net.alone();
    let (low, high) = net.usable();
    let of_network = || match is_network {
        true => Ok(()),
        false => fault::fail("this query of ipaddr wants a network"),
    };
    let many = !net.is_single();
    let address = net.show(net.value);
    let pair = |other: u128| format!("{} {}", net.show(net.first()), net.show(other));
    let host_address = !net.is_network() || net.broadcast().is_none();
    Ok(match query {
        "" => Value::from(if is_network {
            net.cidr(net.value)
        } else {
            address
        }),
        "address" | "ip" => shown(!many || host_address || net.version == 6, address),
        "address/prefix" | "gateway" | "gw" | "host/prefix" | "hostnet" | "router" => {
            let is_end = net.is_network() || Some(net.value) == net.broadcast();
            if net.host_mask() > 1 && is_end {
                return Ok(Value::from(false));
            }
            Value::from(net.cidr(net.value))
        }
        "bool" => Value::from(true),
        "broadcast" => match net.broadcast().filter(|_| net.host_mask() > 1) {
            Some(broadcast) => Value::from(net.show(broadcast)),
            None => Value::from(()),
        },
        "cidr" => Value::from(net.cidr(net.value)),
        "first_usable" => {
            of_network()?;
            shown(many, net.show(low))
        }
        "last_usable" => {
            of_network()?;
            shown(many, net.show(high))
        }
        "range_usable" => {
            of_network()?;
            shown(many, format!("{}-{}", net.show(low), net.show(high)))
        }
        "next_usable" | "previous_usable" => {
            of_network()?;
            let step = if query == "next_usable" { 1 } else { -1 };
            usable(net, step)
        }
        "host" => shown(!many || host_address, net.cidr(net.value)),
        "hostmask" | "wildcard" => Value::from(net.show(net.host_mask())),
        "int" if is_network => Value::from(format!("{}/{}", net.value, net.prefix)),
        "int" => number(net.value)?,
        "ip/prefix" => shown(
            net.host_mask() == 1 || many && !net.is_network(),
            net.cidr(net.value),
        ),
        "ip_netmask" => shown(
            net.host_mask() == 1 || many && !net.is_network(),
            format!("{address} {}", net.show(net.mask())),
        ),
        "ipv4" | "v4" if net.version == 4 => Value::from(text),
        "ipv6" | "v6" if net.version == 6 => Value::from(text),
        "link-local" => given(host.is_in(&LINK_LOCAL)),
        "lo" | "loopback" => given(host.is_in(&LOOPBACK)),
        "multicast" => given(net.is_in(&MULTICAST)),
        "unicast" => given(!net.is_in(&MULTICAST)),
        "net" => shown(many && net.is_network(), net.cidr(net.first())),
        "netmask" => Value::from(net.show(net.mask())),
        "network" | "network_id" => Value::from(net.show(net.first())),
        "network/prefix" | "subnet" => Value::from(net.cidr(net.first())),
        "network_netmask" => Value::from(pair(net.mask())),
        "network_wildcard" => Value::from(pair(net.host_mask())),
        "peer" => {
            of_network()?;
            match (net.host_mask(), net.value & 3) {
                (1, _) => Value::from(net.show(net.value ^ 1)),
                (3, 1 | 2) => Value::from(net.show(net.value ^ 3)),
                _ => return fault::fail("an address without a peer"),
            }
        }
        "prefix" => Value::from(net.prefix),
        "private" => given(net.is_in(&PRIVATE)),
        "public" => {
            let inverse = net.all() & !net.value;
            let is_mask = |value: u128| value & value.wrapping_add(1) == 0;
            given(
                !host.is_in(&MULTICAST)
                    && !host.is_in(&PRIVATE)
                    && !host.is_in(&LOOPBACK)
                    && !is_mask(inverse)
                    && !is_mask(net.value),
            )
        }
        "revdns" => Value::from(match net.version {
            4 => {
                let mut octets = (net.value as u32)
                    .to_be_bytes()
                    .map(|octet| octet.to_string());
                octets.reverse();
                format!("{}.in-addr.arpa.", octets.join("."))
            }
            _ => {
                let digits: Vec<String> = format!("{:032x}", net.value)
                    .chars()
                    .rev()
                    .map(String::from)
                    .collect();
                format!("{}.ip6.arpa.", digits.join("."))
            }
        }),
        "size" => number(net.size().ok_or_else(no_address)?)?,
        "size_usable" => number(match net.host_mask() {
            0 => 0,
            1 => 2,
            mask => mask - 1,
        })?,
        "type" => Value::from(match many && net.is_network() {
            true => "network",
            false => "address",
        }),
        "version" => Value::from(net.version),
        "wrap" if net.version == 4 => Value::from(text),
        "wrap" if is_network => Value::from(format!("[{address}]/{}", net.prefix)),
        "wrap" => Value::from(format!("[{address}]")),
        "6to4" | "cidr_lookup" | "ipv4" | "v4" | "ipv6" | "v6" => {
            return fault::fail("a query of ipaddr that is not supported");
        }
        _ => {
            let is_number = query.chars().all(|c| c.is_ascii_digit()) && !query.is_empty();
            if !is_number && let Some((other, _)) = parse(query).ok().flatten() {
                return Ok(given(other.contains(net)));
            }
            let Some(index) = python::parse_int(query, 10) else {
                return fault::fail("a query of ipaddr that is not known");
            };
            match (many, is_network) {
                (false, false) => Value::from(address),
                (false, true) => Value::from(net.cidr(net.value)),
                (true, _) => match net.at(index) {
                    Some(address) => Value::from(format!("{address}/{}", net.prefix)),
                    None => Value::from(false),
                },
            }
        }
    })
}

fn number(value: u128) -> Result<Value> {
    i128::try_from(value)
        .map(value::int)
        .map_err(|_| fault::error("a number grows too large"))
}

/// The address `step` after the network's own one, where it is usable.
fn usable(net: Net, step: i128) -> Value {
    let (low, high) = net.usable();
    let found = net.value.checked_add_signed(step);
    match found.filter(|at| !net.is_single() && (low..=high).contains(at)) {
        Some(at) => Value::from(net.show(at)),
        None => Value::from(()),
    }
}

fn nth_usable(call: &mut Call, sign: i128) -> Result<Value> {
    let Some((net, _)) = parse(&call.input()?)? else {
        return Ok(Value::from(false));
    };
    // Both filters begin at the network's address where the value is that of a network.
    let offset = call.integer(1, "offset")?.unwrap_or(0);
    Ok(usable(
        net,
        sign.saturating_mul(offset.clamp(-(1 << 40), 1 << 40)),
    ))
}

fn within(part: &str, (whole, usable): (&str, bool)) -> Result<bool> {
    let (Some((part, _)), Some((whole, _))) = (parse(part)?, parse(whole)?) else {
        return Err(no_address());
    };
    let (low, high) = match usable {
        true => whole.usable(),
        false => (whole.first(), whole.last()),
    };
    Ok(part.version == whole.version && low <= part.first() && part.last() <= high)
}

fn ipsubnet(call: &mut Call) -> Result<Value> {
    let no = Ok(Value::from(false));
    let Some((given, _)) = parse(&call.input()?)? else {
        return no;
    };
    let query = call.text_or(1, "query", "")?;
    let index = match call.arg(2, "index") {
        Some(index) if !index.is_none() => Some(
            python::parse_int(&python::text(&index), 10)
                .ok_or_else(|| fault::error("the index of a subnet is an integer"))?,
        ),
        _ => None,
    };
    // The value as a network; an address with a prefix is a single one here.
    let net = match given.is_network() || given.is_single() {
        true => given,
        false => Net {
            value: given.first(),
            ..given
        },
    };
    if query.is_empty() {
        return Ok(Value::from(net.cidr(net.first())));
    }
    if let Ok(prefix) = query.parse::<u32>() {
        if prefix > net.width() {
            return no;
        }
        if net.is_single() {
            // Networks around an address, the largest first.
            let index = index.unwrap_or(0);
            let count = i128::from(net.width().saturating_sub(prefix));
            let at = if index < 0 { index + count } else { index };
            if !(0..count).contains(&at) {
                return fault::fail("a subnet that is not there");
            }
            let net = Net {
                prefix: prefix + at as u32,
                ..net
            };
            return Ok(Value::from(net.cidr(net.first())));
        }
        if prefix < net.prefix {
            return fault::fail("a subnet that is larger than its network");
        }
        let count = 1u128.checked_shl(prefix - net.prefix).unwrap_or(u128::MAX);
        let Some(index) = index else {
            return Ok(Value::from(count.to_string()));
        };
        let count = i128::try_from(count).unwrap_or(i128::MAX);
        let at = if index < 0 { index + count } else { index };
        if !(0..count).contains(&at) {
            return no;
        }
        let value = net.first() + ((at as u128) << (net.width() - prefix));
        return Ok(Value::from(
            Net {
                value,
                prefix,
                ..net
            }
            .cidr(value),
        ));
    }
    let Some((outer, _)) = parse(&query)? else {
        return fault::fail("a subnet or address is wanted");
    };
    if !outer.contains(net) {
        return fault::fail("a network that is not in the other");
    }
    let shift = net.width() - net.prefix;
    let position = (net.first() - outer.first())
        .checked_shr(shift)
        .unwrap_or(0);
    Ok(Value::from((position + 1).to_string()))
}

fn cidr_merge(call: &mut Call) -> Result<Value> {
    let mut nets = Vec::new();
    for item in call.items()? {
        let (net, _) = parse(&python::defined_text(&item)?)?.ok_or_else(no_address)?;
        nets.push(net);
    }
    nets.sort_by_key(|net| (net.version, net.first(), net.prefix));
    match call.text_or(1, "action", "merge")?.as_str() {
        "merge" => {}
        "span" => {
            let (Some(first), Some(last)) =
                (nets.first(), nets.iter().max_by_key(|net| net.last()))
            else {
                return Ok(Value::from(()));
            };
            if first.version != last.version {
                return fault::fail("addresses of both versions have no network in common");
            }
            if nets.len() == 1 {
                return Ok(Value::from(first.cidr(first.value)));
            }
            let mut net = *first;
            while net.last() < last.last() {
                net.prefix -= 1;
            }
            return Ok(Value::from(net.cidr(net.first())));
        }
        _ => return fault::fail("cidr_merge knows merge and span"),
    }
    let mut out: Vec<Net> = Vec::new();
    for mut net in nets {
        net.value = net.first();
        if out.last().is_some_and(|last| last.contains(net)) {
            continue;
        }
        // Two halves become the network that they make up.
        while let Some(last) = out.last().copied() {
            let parent = Net {
                prefix: net.prefix.saturating_sub(1),
                ..last
            };
            let halves = net.prefix > 0
                && last.prefix == net.prefix
                && last.version == net.version
                && parent.first() == last.first()
                && parent.contains(net);
            if !halves {
                break;
            }
            out.pop();
            net = Net {
                value: parent.first(),
                ..parent
            };
        }
        out.push(net);
    }
    Ok(value::list(
        out.iter()
            .map(|net| Value::from(net.cidr(net.value)))
            .collect(),
    ))
}

/// A MAC address in one of its usual spellings.
fn octets(text: &str) -> Option<u64> {
    let hex = |text: &str, width: usize| {
        text.len() == width && text.chars().all(|c| c.is_ascii_hexdigit())
    };
    let separator = text.chars().find(|c| matches!(c, ':' | '-' | '.'));
    let (separator, count, width) = match separator {
        None if hex(text, 12) => return u64::from_str_radix(text, 16).ok(),
        Some('.') => ('.', 3, 4),
        Some(separator) => (separator, 6, 2),
        None => return None,
    };
    let parts: Vec<&str> = text.split(separator).collect();
    if parts.len() != count || !parts.iter().all(|part| hex(part, width)) {
        return None;
    }
    u64::from_str_radix(&parts.concat(), 16).ok()
}

fn hwaddr(call: &mut Call) -> Result<Value> {
    let text = call.input()?;
    let query = call.text_or(1, "query", "")?;
    let Some(mac) = octets(&text) else {
        return match query.as_str() {
            "" | "bool" => Ok(Value::from(())),
            _ => fault::fail("what is no hardware address"),
        };
    };
    let words = |bits: u32, separator: &str, write: fn(u64) -> String| -> String {
        let count = 48 / bits;
        let parts: Vec<String> = (0..count)
            .map(|at| write(mac >> (48 - bits * (at + 1)) & ((1 << bits) - 1)))
            .collect();
        parts.join(separator)
    };
    Ok(Value::from(match query.as_str() {
        "" => text,
        "bool" => return Ok(Value::from(true)),
        "int" => return Ok(Value::from(mac)),
        "bare" => words(48, "", |word| format!("{word:012X}")),
        "cisco" => words(16, ".", |word| format!("{word:04x}")),
        "eui48" | "win" => words(8, "-", |word| format!("{word:02X}")),
        "linux" => words(8, ":", |word| format!("{word:02x}")),
        "pgsql" | "postgresql" | "psql" => words(24, ":", |word| format!("{word:06x}")),
        "unix" => words(8, ":", |word| format!("{word:x}")),
        _ => return fault::fail("a query of hwaddr that is not known"),
    }))
}
