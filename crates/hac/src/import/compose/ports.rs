//! `ports` and `expose`: which ports the workload listens on, and what of the host's side a manifest can't say.

use super::unsupported;
use crate::import::draft::{Draft, MOST_PORTS};
use crate::import::reader::{At, Fields, Reader};
use crate::import::remark::Outcome;

/// One entry: ports inside, and where they are published.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    address: Option<String>,
    /// The first and last port on the host.
    host: Option<(u16, u16)>,
    /// The first and last port inside.
    inside: (u16, u16),
    protocol: String,
    name: Option<String>,
}

/// Reads the ports of a service.
pub(super) fn read(
    fields: &mut Fields<'_>,
    draft: &mut Draft,
    without_network: bool,
    reader: &mut Reader<'_>,
) {
    if let Some(at) = reader.take(fields, "ports") {
        for item in reader.items(&at) {
            let port = if item.is_table() { long(&item, reader) } else { short(&item, reader) };
            if let Some(port) = port {
                publish(&port, &item, draft, without_network, reader);
            }
        }
    }
    if let Some(at) = reader.take(fields, "expose") {
        for item in reader.items(&at) {
            let Some(port) = short(&item, reader) else { continue };
            if port.protocol != "tcp" || without_network {
                publish(&port, &item, draft, without_network, reader);
                continue;
            }
            let is_new = range(port.inside).any(|port| {
                !draft.manifest.spec.networking.inbound_ports.values().any(|known| *known == port)
            });
            if !add(&port, &item, draft, reader) || !is_new {
                continue;
            }
            reader.noted(
                Outcome::Changed,
                &item,
                "this port is for other services; in a manifest it is an inbound port, which `vimana run` publishes on 127.0.0.1",
                "remove it from `spec.networking.inbound_ports` if nothing reaches it from outside",
            );
        }
    }
}

fn range((first, last): (u16, u16)) -> std::ops::RangeInclusive<u16> {
    first..=last
}

fn add(port: &Port, at: &At<'_>, draft: &mut Draft, reader: &mut Reader<'_>) -> bool {
    if range(port.inside).len() > MOST_PORTS {
        let why = format!("a range of more than {MOST_PORTS} ports isn't carried over");
        reader.lost(at, why, "list the ports that are needed in `spec.networking.inbound_ports`");
        return false;
    }
    range(port.inside).all(|number| draft.port(number, port.name.clone(), at, reader))
}

fn publish(port: &Port, at: &At<'_>, draft: &mut Draft, without_network: bool, reader: &mut Reader<'_>) {
    let shown = |(first, last): (u16, u16)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    if without_network {
        return reader.lost(at, "there is no network to listen on: network_mode is none", "");
    }
    let address = port.address.as_deref().unwrap_or("0.0.0.0");
    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let flag = |protocol: &str| {
        let host = port.host.unwrap_or(port.inside);
        format!(
            "vimana run -p {address}:{}:{}{protocol}",
            shown(host).split('-').next().unwrap_or_default(),
            port.inside.0
        )
    };
    let each = if port.inside.0 == port.inside.1 { "" } else { ", and so on for each" };
    if port.protocol != "tcp" {
        let (why, instead) = match port.protocol.as_str() {
            "udp" => ("the inbound ports of a manifest are TCP ports", format!("{}{each}", flag("/udp"))),
            _ => ("only TCP and UDP are passed on", String::new()),
        };
        return reader.lost(at, why, &instead);
    }
    if !add(port, at, draft, reader) {
        return;
    }
    let is_local = matches!(port.address.as_deref(), Some("127.0.0.1" | "::1" | "localhost"));
    match port.host {
        Some(host) if host == port.inside && is_local => {}
        Some(host) if host != port.inside => reader.noted(
            Outcome::NotCarried,
            at,
            format!(
                "a manifest names the port inside, {}; the one on the host, {}, is given when it is started",
                shown(port.inside),
                shown(host)
            ),
            &format!("{}{each}", flag("")),
        ),
        Some(_) => reader.noted(
            Outcome::Changed,
            at,
            "`vimana run` publishes this port on 127.0.0.1 only",
            &format!("{}{each}", flag("")),
        ),
        None => reader.noted(
            Outcome::Changed,
            at,
            format!(
                "`vimana run` publishes this port as 127.0.0.1:{}, not under a random number",
                shown(port.inside)
            ),
            "",
        ),
    }
}

/// Reads `[[ADDRESS:]HOST:]INSIDE[/PROTOCOL]`.
fn short(at: &At<'_>, reader: &mut Reader<'_>) -> Option<Port> {
    let text = reader.text(at)?;
    let port = parse(text.trim());
    if port.is_none() {
        reader.error(
            at,
            format!("{text:?} is no port"),
            "ports are written as \"80\", \"8080:80\", \"127.0.0.1:8080:80\" or \"53:53/udp\", from 1 to 65535",
        );
    }
    port
}

fn parse(text: &str) -> Option<Port> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if protocol.is_empty() || !protocol.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let (published, inside) = match ports.rsplit_once(':') {
        Some((published, inside)) => (Some(published), inside),
        None => (None, ports),
    };
    let inside = parse_range(inside)?;
    let (address, host) = match published.map(|published| published.rsplit_once(':').ok_or(published)) {
        None => (None, None),
        Some(Err(host)) => (None, Some(host)),
        Some(Ok((address, host))) => (Some(address.trim_matches(['[', ']'])), Some(host)),
    };
    let host = match host {
        None | Some("") => None,
        Some(host) => Some(parse_range(host)?),
    };
    // A range is published by another of the same length; one port may have the choice of several.
    let length = |(first, last): (u16, u16)| last - first;
    if host.is_some_and(|host| length(host) != length(inside) && length(inside) != 0) {
        return None;
    }
    let address = address.filter(|address| !address.is_empty()).map(ToOwned::to_owned);
    Some(Port { address, host, inside, protocol: protocol.to_ascii_lowercase(), name: None })
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some((first, last))
}

/// Reads the long form.
fn long(at: &At<'_>, reader: &mut Reader<'_>) -> Option<Port> {
    let mut fields = reader.fields(at);
    let target = reader.take(&mut fields, "target");
    let inside = target.and_then(|target| short(&target, reader));
    let host = reader.take(&mut fields, "published").and_then(|published| short(&published, reader));
    let address = reader.take_text(&mut fields, "host_ip");
    let protocol = reader.take_text(&mut fields, "protocol");
    let protocol = protocol.unwrap_or_else(|| "tcp".to_owned()).to_ascii_lowercase();
    let name = reader.take_text(&mut fields, "name");
    if let Some(mode) = reader.take(&mut fields, "mode")
        && reader.text(&mode).is_some_and(|mode| mode != "ingress")
    {
        reader.lost(&mode, "a port is always that of the spacecore itself", "");
    }
    reader.rest(fields, unsupported::PORT);
    let Some(inside) = inside else {
        if !reader.has_errors() {
            reader.error(at, format!("`{}` has no `target`", at.path), "it is the port inside: `target: 80`");
        }
        return None;
    };
    Some(Port { address, host: host.map(|host| host.inside), inside: inside.inside, protocol, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_short_form_is_read() {
        let port = |address: Option<&str>, host, inside, protocol: &str| {
            let (address, protocol) = (address.map(ToOwned::to_owned), protocol.to_owned());
            Some(Port { address, host, inside, protocol, name: None })
        };
        let local = Some("127.0.0.1");
        assert_eq!(parse("80"), port(None, None, (80, 80), "tcp"));
        assert_eq!(parse("8080:80"), port(None, Some((8080, 8080)), (80, 80), "tcp"));
        assert_eq!(parse("127.0.0.1:8080:80/udp"), port(local, Some((8080, 8080)), (80, 80), "udp"));
        assert_eq!(parse("127.0.0.1::80"), port(local, None, (80, 80), "tcp"));
        assert_eq!(parse("[::1]:1:2"), port(Some("::1"), Some((1, 1)), (2, 2), "tcp"));
        assert_eq!(parse("3000-3002:4000-4002"), port(None, Some((3000, 3002)), (4000, 4002), "tcp"));
        assert_eq!(parse("3000-3005:80"), port(None, Some((3000, 3005)), (80, 80), "tcp"));
        for wrong in ["", "0", "x", "80:", "70000", "5-3", "1-2:1-3", "80/", "a:b:c:80x", "80/t cp"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
