//! The peer list.

use std::collections::BTreeMap;

use drover_raft::{Peer, ReplicaId};

/// Reads a replica's number: `2`, or a StatefulSet pod's name, whose ordinal counts from 0.
pub(super) fn parse_replica(text: &str) -> Result<ReplicaId, String> {
    let bad = || format!("{text:?} is neither a number above 0 nor a pod's name like drover-0");
    if let Ok(number) = text.parse::<ReplicaId>() {
        return if number > 0 { Ok(number) } else { Err(bad()) };
    }
    let (name, ordinal) = text.rsplit_once('-').ok_or_else(bad)?;
    let ordinal: ReplicaId = ordinal.parse().map_err(|_| bad())?;
    if name.is_empty() {
        return Err(bad());
    }
    ordinal.checked_add(1).ok_or_else(bad)
}

/// Reads `id=host:raft-port/api-port` or `id=host:raft-port/host:api-port`, separated by commas.
pub(super) fn parse_peers(text: &str) -> Result<BTreeMap<ReplicaId, Peer>, String> {
    let mut peers = BTreeMap::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (replica, peer) = parse_peer(item)?;
        if peers.insert(replica, peer).is_some() {
            return Err(format!("replica {replica} is there twice"));
        }
    }
    if peers.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(peers)
}

fn parse_peer(item: &str) -> Result<(ReplicaId, Peer), String> {
    let bad = |what: &str| format!("{item:?} {what}; a replica is 1=host:raft-port/api-port");
    let (replica, addresses) = item.split_once('=').ok_or_else(|| bad("has no number"))?;
    let replica = parse_replica(replica.trim()).map_err(|reason| bad(&reason))?;
    let (raft, api) = addresses.split_once('/').ok_or_else(|| bad("has no API port"))?;
    let (host, port) = raft.rsplit_once(':').ok_or_else(|| bad("has no Raft port"))?;
    if host.is_empty() || !is_port(port) {
        return Err(bad("has no Raft host and port"));
    }
    let api = match api.rsplit_once(':') {
        Some((api_host, port)) if !api_host.is_empty() && is_port(port) => api.to_owned(),
        None if is_port(api) => format!("{host}:{api}"),
        _ => return Err(bad("has no API port")),
    };
    Ok((replica, Peer { raft: raft.to_owned(), api }))
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port != 0)
}
