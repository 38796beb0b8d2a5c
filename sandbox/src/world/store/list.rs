//! Listing at one revision, in pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use drover_common::cluster::ObjectKey;
use serde_json::{Value, json};

use super::Store;
use super::selector::Selector;
use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;
use crate::world::resource::Resource;

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// One namespace; all if `None`.
    pub namespace: Option<String>,
    /// Which objects.
    pub selector: Selector,
    /// At most so many a page.
    pub limit: Option<usize>,
    /// Where the page before this one ended.
    pub continue_token: Option<String>,
    /// Exactly this revision.
    pub exact_revision: Option<u64>,
}

/// One page.
#[derive(Clone, Debug)]
pub struct Page {
    /// The objects, by namespace and name.
    pub items: Vec<Arc<Value>>,
    /// The revision they are of.
    pub revision: u64,
    /// Where the next page starts, if there is one.
    pub continue_token: Option<String>,
    /// How many objects follow, where that is known (no selector).
    pub remaining: Option<usize>,
}

impl Store {
    /// Lists one page. All pages of a list are of one revision.
    ///
    /// # Errors
    /// 400 for a token that is none, 410 when its revision has been compacted.
    pub fn list(&self, resource: &Resource, query: &ListQuery) -> ApiResult<Page> {
        let (revision, after) = match &query.continue_token {
            Some(token) => {
                let (revision, after) = decode_token(token)?;
                (revision, Some(after))
            }
            None => (query.exact_revision.unwrap_or(self.revision()), None),
        };
        let old;
        let empty = BTreeMap::new();
        let table = if revision >= self.revision() {
            self.tables.get(resource).unwrap_or(&empty)
        } else {
            old = self.table_at(resource, revision)?;
            &old
        };
        let mut items = Vec::new();
        let mut last = None;
        let mut remaining = 0;
        for (key, value) in table {
            let wanted =
                query.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
                    && after.as_ref().is_none_or(|after| key > after)
                    && query.selector.matches(value);
            if !wanted {
                continue;
            }
            if query.limit.is_some_and(|limit| items.len() >= limit) {
                remaining += 1;
            } else {
                items.push(Arc::clone(value));
                last = Some(key);
            }
        }
        let continue_token = last.filter(|_| remaining > 0).map(|key| encode_token(revision, key));
        let known = continue_token.is_some() && query.selector.is_empty();
        Ok(Page { items, revision, continue_token, remaining: known.then_some(remaining) })
    }

    /// A resource's objects as they were: today's, with the later changes undone.
    fn table_at(
        &self,
        resource: &Resource,
        revision: u64,
    ) -> ApiResult<BTreeMap<ObjectKey, Arc<Value>>> {
        let mut table = self.tables.get(resource).cloned().unwrap_or_default();
        let changes: Vec<_> = self
            .changes_since(revision)
            .map_err(|_| {
                ApiFailure::expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.")
            })?
            .filter(|change| change.resource == *resource)
            .collect();
        for change in changes.into_iter().rev() {
            match &change.previous {
                Some(previous) => table.insert(change.key.clone(), Arc::clone(previous)),
                None => table.remove(&change.key),
            };
        }
        Ok(table)
    }
}

fn encode_token(revision: u64, key: &ObjectKey) -> String {
    let token = json!({ "rv": revision, "namespace": key.namespace, "name": key.name });
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn decode_token(token: &str) -> ApiResult<(u64, ObjectKey)> {
    let broken = || ApiFailure::bad_request("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| broken())?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|_| broken())?;
    let revision = token.get("rv").and_then(Value::as_u64).ok_or_else(broken)?;
    let key = ObjectKey::new(object::text(&token, "/namespace"), object::text(&token, "/name"));
    Ok((revision, key))
}
