//! One kind's list and watch, as a stream of slim [`ClusterEvent`]s that never ends by itself.

#[cfg(test)]
pub(crate) mod fuzz;
mod lines;
mod page;
mod patience;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use drover_common::call::Kind;
use drover_common::cluster::{ClusterEvent, ObjectKey};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch as newest};
use tokio::time::Instant;

use crate::execute::with_sources;
use crate::jitter::part_of;
use crate::limits::Limits;
use crate::{limits, path};
use lines::{LineError, Lines};
use page::{Item, Page};
use patience::{idle_for_long, in_time, short_watch};

/// After this the server ends a watch in good order; it's opened again where it ended.
const WATCH_LASTS: Duration = Duration::from_secs(290);
/// A watch that ends sooner, and told nothing, did not get on.
const LASTED: Duration = Duration::from_secs(5);
/// So often in a row a watch may fail to open in time, while it's urgent, before there is a new list. Otherwise the first
/// that does so took half a minute, and is the last.
const MOST_UNOPENED: u32 = 3;
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// The most of a reason that is logged: it may quote what was sent.
const LONGEST_REASON: usize = 300;
/// Unreadable objects that are remembered as logged.
const MOST_UNREADABLE: usize = 1_000;

/// Lists `kind` and follows its changes until the receiver is dropped. `fields` is a field selector
/// such as `spec.nodeName=n`.
///
/// Each list is framed by [`ClusterEvent::Restarted`] and [`ClusterEvent::Synced`]. Expired
/// versions, broken connections and restarts of the server lead to a new watch or list, with
/// back-off; [`ClusterEvent::Stale`] is sent as soon as the watch can't be resumed. A kind that the
/// server doesn't know (its CRD is not installed yet) is asked for again quietly. An object that
/// can't be read is logged once per version and skipped. What is beyond `limits` is not read; a line
/// of a watch that is, or that is no event, leads to a new list.
pub async fn watch(
    client: Client,
    kind: Kind,
    fields: Option<String>,
    limits: Limits,
    sender: mpsc::Sender<ClusterEvent>,
) {
    let (_stays_the_same, clients) = newest::channel(client);
    let (_stays_calm, urgent) = newest::channel(false);
    watch_by(clients, urgent, kind, fields, limits, sender).await;
}

/// As [`watch`], by whatever client there is: a newer one goes on at once where the one before it was. While it's
/// `urgent` watches are short, and one that goes on in silence for longer is opened again: it has died. Lists and
/// watches that are not answered are asked for again sooner, too.
pub async fn watch_by(
    clients: newest::Receiver<Client>,
    urgent: newest::Receiver<bool>,
    kind: Kind,
    fields: Option<String>,
    limits: Limits,
    sender: mpsc::Sender<ClusterEvent>,
) {
    let closed = sender.clone();
    let mut watch = Watch {
        clients,
        urgent,
        kind,
        fields,
        limits,
        objects: limits.objects,
        sender,
        synced: false,
        failures: 0,
        unanswered: 0,
        setbacks: 0,
        told: false,
        unreadable: BTreeMap::new(),
    };
    tokio::select! {
        () = watch.run() => {}
        () = closed.closed() => {}
    }
}

/// Why a list or watch ended early.
#[derive(Debug)]
enum Break {
    /// 404: the kind is not served.
    Absent,
    /// 410: the version is too old; only a new list helps.
    Expired,
    /// A page is beyond the limits.
    TooLarge,
    /// A line of the watch is beyond the limits or no event: it would come again if the watch were
    /// resumed before it, and what it was to tell is lost if it were resumed behind.
    Spoilt(String),
    /// Anything else.
    Failed(String),
}

struct Watch {
    clients: newest::Receiver<Client>,
    urgent: newest::Receiver<bool>,
    kind: Kind,
    fields: Option<String>,
    limits: Limits,
    /// What the next page is asked for.
    objects: u32,
    sender: mpsc::Sender<ClusterEvent>,
    /// Whether the receiver's picture is complete, that is `Synced` was sent after the last `Stale`.
    synced: bool,
    /// Lists that failed, and watches that did not open, since the last that did.
    failures: u32,
    /// Pages in a row that took too long.
    unanswered: u32,
    /// Watches in a row that a line ended, or that expired, before they got on.
    setbacks: u32,
    /// Whether it was told that the watch is broken.
    told: bool,
    /// The version of each unreadable object that was logged, by UID.
    unreadable: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Line {
    r#type: String,
    object: Value,
}

impl Watch {
    /// Never returns; dropped with the receiver.
    async fn run(&mut self) {
        loop {
            let ended = match self.list().await {
                Ok(version) => self.follow(version).await,
                Err(problem) => problem,
            };
            match ended {
                // A new list follows at once, except when even fresh versions expire.
                Break::Expired => {
                    tracing::debug!(kind = ?self.kind, "Watch expired; listing.");
                    self.setbacks = self.setbacks.saturating_add(1);
                }
                Break::Absent => {
                    self.mark_stale("the API server does not serve this kind").await;
                }
                Break::TooLarge => self.mark_stale("an object is larger than any can be").await,
                Break::Spoilt(reason) => {
                    self.mark_stale(&reason).await;
                    self.setbacks = self.setbacks.saturating_add(1);
                }
                Break::Failed(reason) => self.mark_stale(&reason).await,
            }
            self.pause().await;
        }
    }

    /// Sends the whole collection; returns the version to watch from.
    async fn list(&mut self) -> Result<String, Break> {
        self.objects = self.limits.objects;
        let mut page = self.page("").await?;
        self.emit(ClusterEvent::Restarted(self.kind)).await;
        loop {
            for item in page.items {
                self.apply(item).await;
            }
            if page.metadata.r#continue.is_empty() {
                break;
            }
            let token = page.metadata.r#continue;
            page = self.page(&token).await?;
        }
        self.synced = true;
        self.emit(ClusterEvent::Synced(self.kind)).await;
        Ok(page.metadata.resource_version)
    }

    fn tell_works(&mut self) {
        if std::mem::take(&mut self.told) {
            tracing::info!(kind = ?self.kind, "Watch works again.");
        }
    }

    /// The watch got on well for a while: what follows is another trouble.
    fn get_on(&mut self) {
        if std::mem::take(&mut self.setbacks) > 0 {
            self.tell_works();
        }
    }

    /// A page of as many objects as fit the limits.
    async fn page(&mut self, token: &str) -> Result<Page, Break> {
        loop {
            match self.page_once(token).await {
                Err(Break::TooLarge) if self.objects > 1 => self.objects /= 2,
                page => return page,
            }
        }
    }

    async fn page_once(&mut self, token: &str) -> Result<Page, Break> {
        let Limits { page, values, .. } = self.limits;
        let query = format!("limit={}&continue={}", self.objects, path::query_value(token));
        let read = async {
            let body = self.open(&query).await?;
            let too_large = |error: &(dyn std::error::Error + Send + Sync + 'static)| {
                error.is::<LengthLimitError>()
            };
            let bytes = Limited::new(body, page)
                .collect()
                .await
                .map_err(|error| match too_large(&*error) {
                    true => Break::TooLarge,
                    false => Break::Failed(with_sources(&*error)),
                })?
                .to_bytes();
            if limits::may_exceed(&bytes, values) {
                return Err(Break::TooLarge);
            }
            Page::read(self.kind, &bytes)
                .map_err(|error| Break::Failed(format!("the list is unreadable: {error}")))
        };
        let answer = in_time(self.urgent.clone(), self.unanswered, read).await;
        self.unanswered = if answer.is_some() { 0 } else { self.unanswered.saturating_add(1) };
        answer.unwrap_or_else(|| Err(Break::Failed("the list took too long".to_owned())))
    }

    /// Follows changes from `version` on, over as many connections as it takes.
    async fn follow(&mut self, mut version: String) -> Break {
        let (mut silent_ends, mut unopened) = (0_u32, 0_u32);
        loop {
            let lasts = if self.is_urgent() { short_watch() } else { WATCH_LASTS };
            let query = format!(
                "watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
                lasts.as_secs(),
                path::query_value(&version)
            );
            self.clients.mark_unchanged();
            let opened = in_time(self.urgent.clone(), unopened, self.open(&query)).await;
            let opened_at = Instant::now();
            let body = match opened {
                Some(Ok(body)) => body,
                Some(Err(problem)) => return problem,
                // What was known is known yet, and a list would ask the same server for more.
                None if self.is_urgent() && unopened.saturating_add(1) < MOST_UNOPENED => {
                    unopened = unopened.saturating_add(1);
                    tokio::time::sleep(delay(unopened)).await;
                    continue;
                }
                None => return Break::Failed("the watch did not open".to_owned()),
            };
            (self.failures, unopened) = (0, 0);
            if self.setbacks == 0 {
                self.tell_works();
            }
            let before = version.clone();
            match self.read(Lines::new(body, self.limits.line), lasts, &mut version).await {
                Ok(()) => self.get_on(),
                Err(Break::Failed(reason)) => {
                    tracing::debug!(kind = ?self.kind, %reason, "Watch broke off; resuming.");
                }
                Err(problem) => return problem,
            }
            // A server that accepts watches and drops them at once must not be hammered.
            let lasted = version != before || opened_at.elapsed() >= LASTED;
            silent_ends = if lasted { 0 } else { silent_ends.saturating_add(1) };
            if silent_ends > 1 {
                tokio::time::sleep(delay(silent_ends)).await;
            }
        }
    }

    /// Reads one connection, which the server ends after so long, to its end.
    async fn read(
        &mut self,
        mut lines: Lines,
        lasts: Duration,
        version: &mut String,
    ) -> Result<(), Break> {
        loop {
            let line = tokio::select! {
                line = lines.next() => Some(line),
                () = idle_for_long(&mut self.urgent, lasts) => None,
                // Whoever has given out clients may give out no more.
                Ok(()) = self.clients.changed() => None,
            };
            let line = match line {
                Some(Ok(Some(line))) => line,
                Some(Ok(None)) | None => return Ok(()),
                Some(Err(LineError::BrokeOff(reason))) => return Err(Break::Failed(reason)),
                Some(Err(LineError::TooLong)) => {
                    return Err(Break::Spoilt("a watch line is longer than any object".to_owned()));
                }
            };
            if limits::may_exceed(&line, self.limits.values) {
                return Err(Break::Spoilt(
                    "a watch line has more in it than any object".to_owned(),
                ));
            }
            let line: Line = serde_json::from_slice(&line)
                .map_err(|error| Break::Spoilt(format!("a watch line is unreadable: {error}")))?;
            let seen = text(&line.object, "/metadata/resourceVersion");
            match line.r#type.as_str() {
                "ADDED" | "MODIFIED" => self.apply(Item::new(self.kind, line.object)).await,
                "DELETED" => self.delete(&line.object).await,
                // They come each minute and before a watch's end, and say that all before them was told.
                "BOOKMARK" => self.get_on(),
                "ERROR" if line.object.get("code").and_then(Value::as_u64) == Some(410) => {
                    return Err(Break::Expired);
                }
                "ERROR" => return Err(Break::Spoilt(text(&line.object, "/message"))),
                other => return Err(Break::Spoilt(format!("unknown watch event {other:?}"))),
            }
            if !seen.is_empty() {
                *version = seen;
            }
        }
    }

    fn is_urgent(&self) -> bool {
        *self.urgent.borrow()
    }

    async fn open(&self, query: &str) -> Result<Body, Break> {
        let mut uri = format!("{}?{query}", path::collection(self.kind, None));
        if let Some(fields) = &self.fields {
            uri.push_str("&fieldSelector=");
            uri.push_str(&path::query_value(fields));
        }
        let request = Request::get(uri)
            .header(header::ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|error| Break::Failed(error.to_string()))?;
        let client = self.clients.borrow().clone();
        let response =
            client.send(request).await.map_err(|error| Break::Failed(with_sources(&error)))?;
        match response.status() {
            status if status.is_success() => Ok(response.into_body()),
            StatusCode::NOT_FOUND => Err(Break::Absent),
            StatusCode::GONE => Err(Break::Expired),
            status => Err(Break::Failed(format!("the API server answered {status}"))),
        }
    }

    async fn apply(&mut self, item: Item) {
        let Item { uid, version, object } = item;
        match object {
            Ok(object) => {
                self.unreadable.remove(&uid);
                self.emit(ClusterEvent::Applied(object)).await;
            }
            Err(error) => {
                if self.unreadable.get(&uid) != Some(&version) {
                    tracing::warn!(%error, "Object is unreadable and was skipped.");
                    if self.unreadable.len() >= MOST_UNREADABLE {
                        self.unreadable.pop_first();
                    }
                    self.unreadable.insert(uid, version);
                }
            }
        }
    }

    async fn delete(&mut self, object: &Value) {
        self.unreadable.remove(&text(object, "/metadata/uid"));
        let key =
            ObjectKey::new(text(object, "/metadata/namespace"), text(object, "/metadata/name"));
        self.emit(ClusterEvent::Deleted(self.kind, key)).await;
    }

    async fn mark_stale(&mut self, reason: &str) {
        let reason: String = reason.chars().take(LONGEST_REASON).collect();
        if self.synced {
            self.synced = false;
            if !std::mem::replace(&mut self.told, true) {
                tracing::warn!(kind = ?self.kind, %reason, "Watch is broken; retrying.");
            }
            self.emit(ClusterEvent::Stale(self.kind)).await;
        } else if self.failures == 0 {
            tracing::debug!(kind = ?self.kind, %reason, "Watch can't start yet; retrying.");
        }
    }

    async fn pause(&mut self) {
        let failures = self.failures.max(self.setbacks.saturating_sub(1));
        tokio::time::sleep(delay(failures)).await;
        self.failures = self.failures.saturating_add(1);
    }

    async fn emit(&self, event: ClusterEvent) {
        // A dropped receiver ends the whole watch at its next await.
        let _closed = self.sender.send(event).await;
    }
}

/// Exponential, with jitter of half its length so that many nodes don't come back in step.
fn delay(failures: u32) -> Duration {
    part_of(FIRST_DELAY.saturating_mul(1_u32 << failures.min(8)).min(LONGEST_DELAY))
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
