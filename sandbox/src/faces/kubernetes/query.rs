//! Query parameters.

use super::path::decode_percent;
use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::store::Propagation;
use crate::world::store::list::ListQuery;
use crate::world::store::selector::Selector;

/// The query parameters that verbs share.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) watch: bool,
    pub(super) selector: Selector,
    pub(super) limit: Option<usize>,
    pub(super) continue_token: Option<String>,
    pub(super) resource_version: String,
    pub(super) resource_version_match: String,
    pub(super) allow_bookmarks: bool,
    pub(super) send_initial_events: bool,
    pub(super) timeout_seconds: Option<u64>,
    pub(super) dry_run: bool,
    pub(super) field_manager: String,
    pub(super) field_validation: String,
    pub(super) force: bool,
    pub(super) grace_seconds: Option<i64>,
    pub(super) propagation: Option<Propagation>,
    pub(super) include_object: String,
}

impl Query {
    /// Reads the part of a URL after `?`.
    pub(super) fn parse(text: &str) -> ApiResult<Self> {
        let mut query = Self::default();
        let (mut labels, mut fields) = (String::new(), String::new());
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode_percent(&value.replace('+', " "));
            match name {
                "labelSelector" => labels = value,
                "fieldSelector" => fields = value,
                _ => query.set(name, value)?,
            }
        }
        query.selector = Selector::parse(&labels, &fields)?;
        Ok(query)
    }

    fn set(&mut self, name: &str, value: String) -> ApiResult<()> {
        match name {
            "watch" => self.watch = is_true(&value),
            "limit" => self.limit = Some(number(name, &value)?).filter(|limit| *limit > 0),
            "continue" => self.continue_token = Some(value).filter(|token| !token.is_empty()),
            "resourceVersion" => self.resource_version = value,
            "resourceVersionMatch" => self.resource_version_match = value,
            "allowWatchBookmarks" => self.allow_bookmarks = is_true(&value),
            "sendInitialEvents" => self.send_initial_events = is_true(&value),
            "timeoutSeconds" => self.timeout_seconds = Some(number(name, &value)?),
            "dryRun" => self.dry_run = dry_run(&value)?,
            "fieldManager" => self.field_manager = value,
            "fieldValidation" => self.field_validation = value,
            "force" => self.force = is_true(&value),
            "gracePeriodSeconds" => self.grace_seconds = Some(number(name, &value)?),
            "propagationPolicy" => self.propagation = Some(propagation(&value)?),
            "orphanDependents" if is_true(&value) => self.propagation = Some(Propagation::Orphan),
            "includeObject" => self.include_object = value,
            // The real server ignores what it does not know, too.
            _ => {}
        }
        Ok(())
    }

    /// What is to be listed.
    pub(super) fn list_query(&self, namespace: &str) -> ApiResult<ListQuery> {
        let exact = self.resource_version_match == "Exact";
        let revision = match self.resource_version.as_str() {
            "" | "0" => None,
            text => Some(number::<u64>("resourceVersion", text)?),
        };
        Ok(ListQuery {
            namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
            selector: self.selector.clone(),
            limit: self.limit,
            continue_token: self.continue_token.clone(),
            exact_revision: revision.filter(|_| exact),
        })
    }
}

fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// `All` is the one value of `dryRun`.
pub(super) fn dry_run(text: &str) -> ApiResult<bool> {
    match text {
        "" => Ok(false),
        "All" => Ok(true),
        other => Err(ApiFailure::bad_request(format!(
            "dryRun: Unsupported value: {other:?}: supported values: \"All\""
        ))),
    }
}

/// Reads a deletion's propagation policy.
pub(super) fn propagation(text: &str) -> ApiResult<Propagation> {
    match text {
        "" | "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        "Orphan" => Ok(Propagation::Orphan),
        other => Err(ApiFailure::bad_request(format!(
            "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
        ))),
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> ApiResult<T> {
    text.parse()
        .map_err(|_| ApiFailure::bad_request(format!("{name}: {text:?} is not a valid number")))
}
