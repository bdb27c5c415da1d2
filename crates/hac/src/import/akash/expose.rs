//! `expose`: the ports of a service, and for whom they are.

use crate::import::draft::Draft;
use crate::import::reader::{At, Reader};
use crate::import::remark::Outcome;

/// Reads the list of exposed ports.
pub(super) fn read(at: &At<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    for item in reader.items(at) {
        one(&item, draft, reader);
    }
}

fn one(item: &At<'_>, draft: &mut Draft, reader: &mut Reader<'_>) {
    let mut fields = reader.fields(item);
    let port = reader.take(&mut fields, "port").and_then(|at| Some((port(&at, reader)?, at)));
    let outside = reader.take(&mut fields, "as").and_then(|at| Some((self::port(&at, reader)?, at)));
    let protocol = reader.take(&mut fields, "proto").and_then(|at| Some((reader.text(&at)?, at)));
    let mut is_global = false;
    let mut services = Vec::new();
    if let Some(at) = reader.take(&mut fields, "to") {
        for item in reader.items(&at) {
            let mut target = reader.fields(&item);
            if let Some(at) = reader.take(&mut target, "global") {
                is_global |= reader.flag(&at).unwrap_or_default();
            }
            if let Some(at) = reader.take(&mut target, "service") {
                services.extend(reader.text(&at));
            }
            reader.rest(
                target,
                &[(
                    "ip",
                    "addresses aren't leased by a manifest",
                    "`vimana run -p ADDRESS:HOST:PORT` publishes on an address of the machine",
                )],
            );
        }
    }
    reader.rest(
        fields,
        &[
            (
                "accept",
                "host names are no part of a manifest",
                "point the name at the node, and have the workload or a proxy tell names apart",
            ),
            (
                "http_options",
                "requests reach the workload as they are",
                "set limits and timeouts in the workload or a proxy",
            ),
        ],
    );
    let Some((port, place)) = port else {
        if !reader.has_errors() {
            reader.error(
                item,
                format!("`{}` has no `port`", item.path),
                "it is the port on which the workload listens: `port: 80`",
            );
        }
        return;
    };
    if let Some((protocol, at)) = protocol
        && !matches!(protocol.to_ascii_lowercase().as_str(), "tcp" | "http" | "https")
    {
        let outside = outside.as_ref().map_or(port, |(outside, _)| *outside);
        reader.lost(
            &at,
            "the inbound ports of a manifest are TCP ports",
            &format!("vimana run -p 0.0.0.0:{outside}:{port}/udp"),
        );
        return;
    }
    if !draft.port(port, None, &place, reader) {
        return;
    }
    if let Some((outside, at)) = outside
        && outside != port
    {
        let why = format!(
            "a manifest names the port inside, {port}; the one outside, {outside}, is given when it is started"
        );
        reader.lost(&at, why, &format!("vimana run -p 0.0.0.0:{outside}:{port}"));
    } else if is_global {
        reader.noted(
            Outcome::Changed,
            &place,
            "`vimana run` publishes this port on 127.0.0.1 only",
            &format!("vimana run -p 0.0.0.0:{port}:{port}"),
        );
    }
    if !is_global {
        let whom = if services.is_empty() { "other services".to_owned() } else { services.join(", ") };
        reader.noted(
            Outcome::Changed,
            &place,
            format!("this port is for {whom} only; in a manifest it is an inbound port, which `vimana run` publishes on 127.0.0.1"),
            "",
        );
    }
}

fn port(at: &At<'_>, reader: &mut Reader<'_>) -> Option<u16> {
    let text = reader.text(at)?;
    let port = text.trim().parse().ok().filter(|port| *port > 0);
    if port.is_none() {
        reader.error(at, format!("{text:?} is no port"), "ports are numbers from 1 to 65535");
    }
    port
}
