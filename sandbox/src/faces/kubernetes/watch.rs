//! Watching: changes as a stream of JSON lines.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ApiRequest;
use super::read::{Representation, metadata_only};
use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;
use crate::world::store::{Change, ChangeKind};

/// How long a watch lasts that does not say; Kubernetes takes 30 to 60 minutes.
const LONGEST_WATCH: Duration = Duration::from_secs(30 * 60);

/// How often a quiet watch tells where it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(5);

impl ApiRequest {
    pub(super) fn watch(self) -> ApiResult<Response> {
        let feed = Feed::open(self)?;
        let stream = futures::stream::unfold(feed, |mut feed| async move {
            let bytes = feed.next().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), feed))
        });
        let mut response = Response::new(Body::from_stream(stream));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

/// One watch: what is ready to be sent, and where in the log it stands.
struct Feed {
    request: ApiRequest,
    cursor: u64,
    ready: VecDeque<Bytes>,
    revisions: watch::Receiver<u64>,
    ends: Instant,
    bookmark: Instant,
    /// Tables carry their columns once.
    with_columns: bool,
    over: bool,
}

impl Feed {
    fn open(request: ApiRequest) -> ApiResult<Self> {
        let query = &request.query;
        let from_now = matches!(query.resource_version.as_str(), "" | "0");
        let lasts = query.timeout_seconds.map_or(LONGEST_WATCH, Duration::from_secs);
        let mut listing = query.list_query(&request.path.namespace)?;
        (listing.limit, listing.continue_token, listing.exact_revision) = (None, None, None);
        let initial = from_now || query.send_initial_events;
        let revisions = request.world.revisions();
        let (cursor, items) = request.world.with(|world, _| -> ApiResult<_> {
            if initial {
                let page = world.store.list(&request.served.storage, &listing)?;
                return Ok((page.revision, page.items));
            }
            let revision = query.resource_version.parse().map_err(|_| {
                let text = &query.resource_version;
                ApiFailure::bad_request(format!(
                    "Invalid value: {text:?}: invalid resource version"
                ))
            })?;
            Ok((revision, Vec::new()))
        })?;
        let now = Instant::now();
        let mut feed = Self {
            cursor,
            ready: VecDeque::new(),
            revisions,
            ends: now + lasts,
            bookmark: now + BOOKMARK_EVERY,
            with_columns: true,
            over: false,
            request,
        };
        for item in items {
            feed.push("ADDED", &item);
        }
        if feed.request.query.send_initial_events && feed.request.query.allow_bookmarks {
            feed.push_bookmark(true);
        }
        Ok(feed)
    }

    /// The next line; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.over || Instant::now() >= self.ends {
                return None;
            }
            self.revisions.mark_unchanged();
            self.read_log();
            if !self.ready.is_empty() || self.over {
                continue;
            }
            let wake = self.ends.min(self.bookmark);
            tokio::select! {
                changed = self.revisions.changed() => {
                    // The world is gone with its sandbox.
                    self.over |= changed.is_err();
                }
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= self.bookmark {
                        self.bookmark = Instant::now() + BOOKMARK_EVERY;
                        if self.request.query.allow_bookmarks {
                            self.push_bookmark(false);
                        }
                    }
                }
            }
        }
    }

    /// Takes the changes since the last look.
    fn read_log(&mut self) {
        let (world, storage) = (self.request.world.clone(), self.request.served.storage.clone());
        let taken = world.with(|world, _| -> ApiResult<(u64, Vec<Change>)> {
            let changes = world.store.changes_since(self.cursor)?;
            let own = changes.filter(|change| change.resource == storage).cloned().collect();
            Ok((world.store.revision().max(self.cursor), own))
        });
        match taken {
            Ok((revision, changes)) => {
                self.cursor = revision;
                for change in changes {
                    self.push_change(&change);
                }
            }
            Err(failure) => {
                let line = json!({ "type": "ERROR", "object": failure.to_status() });
                self.ready.push_back(line_of(&line));
                self.over = true;
            }
        }
    }

    fn push_change(&mut self, change: &Change) {
        let path = &self.request.path;
        if !path.namespace.is_empty() && path.namespace != change.key.namespace
            || !path.name.is_empty() && path.name != change.key.name
        {
            return;
        }
        let selector = &self.request.query.selector;
        let before = change.previous.as_ref().is_some_and(|previous| selector.matches(previous));
        let after = change.kind != ChangeKind::Deleted && selector.matches(&change.object);
        match (before, after) {
            (false, true) => self.push("ADDED", &change.object),
            (true, true) => self.push("MODIFIED", &change.object),
            (true, false) => {
                // Of an object that left the selection the watcher gets the last state it knew,
                // at the revision at which it left.
                let mut last = change
                    .previous
                    .as_ref()
                    .map(|previous| Value::clone(previous))
                    .unwrap_or_default();
                let version = change.revision.to_string();
                object::set(&mut last, &["metadata", "resourceVersion"], version);
                self.push("DELETED", &last);
            }
            (false, false) => {}
        }
    }

    fn push(&mut self, kind: &str, object: &Value) {
        let shown = self.request.served.present(object);
        let shown = match self.request.representation {
            Representation::Full => shown,
            Representation::Metadata => metadata_only(&shown),
            Representation::Table => {
                let version = object::text(object, "/metadata/resourceVersion");
                let columns = std::mem::take(&mut self.with_columns);
                self.request.table(&[shown], json!({ "resourceVersion": version }), columns)
            }
        };
        self.ready.push_back(line_of(&json!({ "type": kind, "object": shown })));
    }

    fn push_bookmark(&mut self, initial_events_end: bool) {
        let served = &self.request.served;
        let mut metadata =
            json!({ "resourceVersion": self.cursor.to_string(), "creationTimestamp": null });
        if initial_events_end {
            object::set(
                &mut metadata,
                &["annotations"],
                json!({ "k8s.io/initial-events-end": "true" }),
            );
        }
        let (kind, api_version) = match self.request.representation {
            Representation::Full => (served.definition.kind.as_str(), served.api_version.as_str()),
            Representation::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1"),
            Representation::Table => ("Table", "meta.k8s.io/v1"),
        };
        let bookmark = json!({ "kind": kind, "apiVersion": api_version, "metadata": metadata });
        self.ready.push_back(line_of(&json!({ "type": "BOOKMARK", "object": bookmark })));
    }
}

fn line_of(event: &Value) -> Bytes {
    Bytes::from(format!("{event}\n"))
}
