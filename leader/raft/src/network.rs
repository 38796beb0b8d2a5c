//! The sending side of the Raft transport: HTTP POST with JSON bodies.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use openraft::OptionalSend;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Peer;
use crate::identity::IdentityFile;
use crate::peer_clients::{PeerClients, Purpose};
use crate::told::Told;
use crate::types::{MemberId, ReplicaAddress, ReplicaId, Snapshot, SnapshotMeta, TypeConfig, Vote};
use crate::wire::{Envelope, PROTOCOL, Rpc, SnapshotHeader};

/// Makes one client per peer and purpose, so that a large snapshot never delays a heartbeat.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    own: MemberId,
    replica: ReplicaId,
    identity: Arc<IdentityFile>,
    /// Addresses by configuration; they win over those in the log, which may be older.
    peers: Arc<BTreeMap<ReplicaId, Peer>>,
    /// How long a follower may take to sync new entries to its disk.
    append_patience: Duration,
    clients: PeerClients,
    told: Told<(MemberId, Purpose)>,
}

impl Network {
    pub(crate) fn new(
        own: MemberId,
        replica: ReplicaId,
        identity: Arc<IdentityFile>,
        peers: Arc<BTreeMap<ReplicaId, Peer>>,
        append_patience: Duration,
        clients: PeerClients,
    ) -> Self {
        let told = Told::nothing();
        Self { own, replica, identity, peers, append_patience, clients, told }
    }

    fn client(&self, purpose: Purpose, target: MemberId, node: &ReplicaAddress) -> PeerClient {
        let configured = self.peers.get(&node.replica_of(target));
        let address = configured.map_or(&node.raft, |peer| &peer.raft);
        PeerClient {
            clients: self.clients.clone(),
            purpose,
            base: self.clients.url(address),
            own: self.own,
            replica: self.replica,
            target,
            identity: Arc::clone(&self.identity),
            least_patience: Duration::ZERO,
            told: self.told.clone(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerClient;

    async fn new_client(&mut self, target: MemberId, node: &ReplicaAddress) -> PeerClient {
        let client = self.client(Purpose::Replication, target, node);
        PeerClient { least_patience: self.append_patience, ..client }
    }

    async fn new_heartbeat_client(
        &mut self,
        target: MemberId,
        node: &ReplicaAddress,
    ) -> PeerClient {
        self.client(Purpose::Heartbeat, target, node)
    }

    async fn new_snapshot_client(&mut self, target: MemberId, node: &ReplicaAddress) -> PeerClient {
        self.client(Purpose::Snapshot, target, node)
    }
}

/// Speaks to one peer for one purpose.
#[derive(Clone, Debug)]
pub(crate) struct PeerClient {
    clients: PeerClients,
    purpose: Purpose,
    base: String,
    own: MemberId,
    replica: ReplicaId,
    target: MemberId,
    identity: Arc<IdentityFile>,
    least_patience: Duration,
    told: Told<(MemberId, Purpose)>,
}

impl PeerClient {
    fn envelope<T>(&self, body: T) -> Result<Envelope<T>, RPCError<TypeConfig>> {
        let cluster = self.identity.cluster().ok_or_else(|| {
            RPCError::Unreachable(Unreachable::from_string("this replica is in no group yet"))
        })?;
        Ok(Envelope {
            protocol: PROTOCOL,
            cluster,
            sender: self.own,
            replica: Some(self.replica),
            receiver: self.target,
            body,
        })
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        rpc: Rpc,
        request: Q,
        patience: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        let body = serde_json::to_vec(&self.envelope(request)?)
            .map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        self.post(rpc, body, patience.max(self.least_patience)).await
    }

    async fn post<A: DeserializeOwned>(
        &self,
        rpc: Rpc,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        let (status, bytes) = self.exchange(rpc, body, patience).await.map_err(|error| {
            let unreachable = Unreachable::new(&error);
            self.tell_failure("no answer", &unreachable);
            if error.is_timeout() && !error.is_connect() {
                RPCError::Timeout(self.timed_out(rpc, patience))
            } else {
                RPCError::Unreachable(unreachable)
            }
        })?;
        if !status.is_success() {
            let reason = format!("it answered {status}: {}", String::from_utf8_lossy(&bytes));
            let unreachable = Unreachable::from_string(format!("{}: {reason}", self.base));
            self.tell_failure(&reason, &unreachable);
            return Err(RPCError::Unreachable(unreachable));
        }
        if self.told.is_over(&(self.target, self.purpose)) {
            tracing::info!(
                peer = self.base,
                member = %self.target,
                purpose = ?self.purpose,
                "Raft reaches a peer again."
            );
        }
        serde_json::from_slice(&bytes).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }

    async fn exchange(
        &self,
        rpc: Rpc,
        body: Vec<u8>,
        patience: Duration,
    ) -> reqwest::Result<(StatusCode, Bytes)> {
        let answer = self
            .clients
            .get(self.purpose)
            .post(format!("{}{}", self.base, rpc.path()))
            .header(http::header::CONTENT_TYPE, "application/json")
            .timeout(patience)
            .body(body)
            .send()
            .await?;
        Ok((answer.status(), answer.bytes().await?))
    }

    /// A peer is called many times a second: what goes on is told once.
    fn tell_failure(&self, what: &str, error: &Unreachable<TypeConfig>) {
        if self.told.is_news((self.target, self.purpose), what) {
            tracing::warn!(
                peer = self.base,
                member = %self.target,
                purpose = ?self.purpose,
                %error,
                "Raft does not reach a peer."
            );
        }
    }

    fn timed_out(&self, rpc: Rpc, timeout: Duration) -> Timeout<TypeConfig> {
        let action = match rpc {
            Rpc::Append => RPCTypes::AppendEntries,
            Rpc::Vote | Rpc::PreVote => RPCTypes::Vote,
            Rpc::Snapshot => RPCTypes::InstallSnapshot,
            Rpc::TransferLeader => RPCTypes::TransferLeader,
        };
        Timeout { action, id: self.own, target: self.target, timeout }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        state: Bytes,
        patience: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
        let header = self.envelope(SnapshotHeader { vote, meta })?;
        let mut body = serde_json::to_vec(&header)
            .map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        body.push(b'\n');
        body.extend_from_slice(&state);
        self.post(Rpc::Snapshot, body, patience).await
    }
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Rpc::Append, request, option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Rpc::Vote, request, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Rpc::PreVote, request, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = self.send_snapshot(vote, snapshot.meta, snapshot.snapshot, option.soft_ttl());
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => sent.map_err(StreamingError::from),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Rpc::TransferLeader, request, option.soft_ttl()).await
    }
}
