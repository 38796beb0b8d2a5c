//! The writing verbs: create, update, delete, with Kubernetes' preconditions and bookkeeping.

use std::sync::Arc;

use drover_common::cluster::ObjectKey;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Store;
use super::deletion::{is_finished, mark_deleted};
use crate::world::access::User;
use crate::world::api::admission;
use crate::world::failure::{ApiFailure, ApiResult, Cause};
use crate::world::object;
use crate::world::resource::{Definition, NAMESPACES, NODES, Resource};

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but `status` (where `status` is a subresource).
    Main,
    /// The `status` subresource alone.
    Status,
    /// Both at once, past the rules for users' updates: for the cluster's own actors.
    Whole,
}

/// What goes with a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Answer as if, but change nothing.
    pub dry_run: bool,
    /// Refuse unknown and duplicate fields instead of dropping them.
    pub strict: bool,
    /// Who asks; `None` for the cluster's own actors, which admission does not judge.
    pub user: Option<User>,
}

/// How an object's dependents are treated when it is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// The garbage collector deletes them afterwards.
    #[default]
    Background,
    /// They go first.
    Foreground,
    /// They stay, without an owner.
    Orphan,
}

/// What goes with a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Precondition.
    pub uid: Option<String>,
    /// Precondition.
    pub resource_version: Option<String>,
    /// Grace for pods, seconds; the pod's own if `None`.
    pub grace_seconds: Option<i64>,
    /// Dependents.
    pub propagation: Propagation,
    /// Answer as if, but change nothing.
    pub dry_run: bool,
    /// Who asks; `None` for the cluster's own actors, which admission does not judge.
    pub user: Option<User>,
}

/// What a deletion came to.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The object is gone; its last state.
    Gone(Arc<Value>),
    /// It is marked and waits for its grace or its finalizers.
    Pending(Arc<Value>),
}

impl Deleted {
    /// The object's last state.
    pub fn object(&self) -> &Arc<Value> {
        match self {
            Deleted::Gone(object) | Deleted::Pending(object) => object,
        }
    }
}

impl Store {
    /// Creates an object; `metadata.namespace` must be set for namespaced resources.
    ///
    /// # Errors
    /// 404 without the resource or the namespace, 403 in a namespace that is going away, 409 if it
    /// exists, 422 if it is not valid.
    pub fn create(
        &mut self,
        resource: &Resource,
        mut value: Value,
        options: &WriteOptions,
        now: Timestamp,
    ) -> ApiResult<Arc<Value>> {
        let definition = self.definition(resource)?;
        self.check_namespace(&definition, object::namespace(&value))?;
        self.name_object(&mut value);
        stamp_new(&mut value, &definition, self.random().uuid(), now);
        if definition.status && *resource != NODES {
            object::remove(&mut value, &["status"]);
        }
        admission::on_create(self, &definition, &mut value, options, now)?;
        let key = object::key(&value);
        if self.get(resource, &key).is_some() {
            return Err(ApiFailure::already_exists(resource, &key.name));
        }
        if options.dry_run {
            return Ok(Arc::new(value));
        }
        let created = self.commit(resource, key, value);
        admission::after_write(self, &definition, &created);
        Ok(created)
    }

    /// Replaces an object, or one part of it. `metadata.uid` and `metadata.resourceVersion` are
    /// preconditions where they are set. An update that changes nothing makes no new revision. An
    /// object that was waiting for its last finalizer is gone afterwards.
    ///
    /// # Errors
    /// 404, 409 if a precondition does not hold, 422 if it is not valid.
    pub fn update(
        &mut self,
        resource: &Resource,
        value: Value,
        part: Part,
        options: &WriteOptions,
        _now: Timestamp,
    ) -> ApiResult<Arc<Value>> {
        let definition = self.definition(resource)?;
        let key = object::key(&value);
        let current = Arc::clone(self.require(resource, &key)?);
        check_preconditions(
            resource,
            &current,
            Some(object::uid(&value)).filter(|uid| !uid.is_empty()),
            Some(object::text(&value, "/metadata/resourceVersion")).filter(|text| !text.is_empty()),
        )?;
        let mut value = merge_part(&definition, &current, value, part);
        keep_server_fields(&current, &mut value);
        check_finalizers(&definition, &current, &value)?;
        if part != Part::Whole {
            admission::on_update(self, &definition, &current, &mut value, part, options)?;
        }
        if *current == value {
            return Ok(current);
        }
        bump_generation(&current, &mut value);
        if options.dry_run {
            return Ok(Arc::new(value));
        }
        let updated = self.commit(resource, key.clone(), value);
        if is_finished(resource, &updated) {
            let gone = self.withdraw(resource, &key).unwrap_or(updated);
            admission::after_delete(self, &definition, &gone);
            return Ok(gone);
        }
        admission::after_write(self, &definition, &updated);
        Ok(updated)
    }

    /// Reads, changes and writes back one object.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn modify(
        &mut self,
        resource: &Resource,
        key: &ObjectKey,
        part: Part,
        now: Timestamp,
        change: impl FnOnce(&mut Value),
    ) -> ApiResult<Arc<Value>> {
        let mut value = Value::clone(self.require(resource, key)?);
        change(&mut value);
        self.update(resource, value, part, &WriteOptions::default(), now)
    }

    /// Changes an object's status.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn update_status(
        &mut self,
        resource: &Resource,
        key: &ObjectKey,
        now: Timestamp,
        change: impl FnOnce(&mut Value),
    ) -> ApiResult<Arc<Value>> {
        self.modify(resource, key, Part::Status, now, |value| {
            change(object::entry(value, "status"))
        })
    }

    /// Deletes an object: at once, or marked where finalizers or a pod's grace hold it.
    ///
    /// # Errors
    /// 404, 409 if a precondition does not hold, 403 for namespaces that may not go.
    pub fn delete(
        &mut self,
        resource: &Resource,
        key: &ObjectKey,
        options: &DeleteOptions,
        now: Timestamp,
    ) -> ApiResult<Deleted> {
        let definition = self.definition(resource)?;
        let current = Arc::clone(self.require(resource, key)?);
        check_preconditions(
            resource,
            &current,
            options.uid.as_deref(),
            options.resource_version.as_deref(),
        )?;
        if *resource == NAMESPACES
            && matches!(&*key.name, "default" | "kube-system" | "kube-public")
        {
            let detail = "this namespace may not be deleted";
            return Err(ApiFailure::forbidden(resource, &key.name, detail));
        }
        admission::on_delete(self, &definition, &current, options)?;
        let mut value = Value::clone(&current);
        mark_deleted(resource, &mut value, options, now);
        let gone = is_finished(resource, &value);
        if options.dry_run {
            let value = Arc::new(value);
            return Ok(if gone { Deleted::Gone(value) } else { Deleted::Pending(value) });
        }
        if gone {
            let last = self.withdraw(resource, key).unwrap_or(current);
            admission::after_delete(self, &definition, &last);
            return Ok(Deleted::Gone(last));
        }
        if *current == value {
            return Ok(Deleted::Pending(current));
        }
        bump_generation_for_deletion(&current, &mut value);
        Ok(Deleted::Pending(self.commit(resource, key.clone(), value)))
    }

    fn definition(&self, resource: &Resource) -> ApiResult<Arc<Definition>> {
        self.registry().get(resource).map(Arc::clone).ok_or_else(ApiFailure::unknown_path)
    }

    fn check_namespace(&self, definition: &Definition, namespace: &str) -> ApiResult<()> {
        if !definition.namespaced {
            return Ok(());
        }
        if namespace.is_empty() {
            return Err(ApiFailure::bad_request(
                "an empty namespace may not be set during creation",
            ));
        }
        let Some(found) = self.find(&NAMESPACES, "", namespace) else {
            return Err(ApiFailure::not_found(&NAMESPACES, namespace));
        };
        if object::is_deleting(found) {
            let detail = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            return Err(ApiFailure::forbidden(&definition.resource, "", &detail));
        }
        Ok(())
    }

    fn name_object(&mut self, value: &mut Value) {
        let prefix = object::text(value, "/metadata/generateName").to_owned();
        if object::name(value).is_empty() && !prefix.is_empty() {
            // Kubernetes cuts the prefix so that the name stays within 63 characters.
            let prefix: String = prefix.chars().take(58).collect();
            let name = format!("{prefix}{}", self.random().suffix(5));
            object::set(value, &["metadata", "name"], name);
        }
    }
}

fn stamp_new(value: &mut Value, definition: &Definition, uid: String, now: Timestamp) {
    object::set(value, &["apiVersion"], definition.api_version());
    object::set(value, &["kind"], definition.kind.clone());
    for member in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
        "selfLink",
        "generation",
    ] {
        object::remove(value, &["metadata", member]);
    }
    if !definition.namespaced {
        object::remove(value, &["metadata", "namespace"]);
    }
    object::set(value, &["metadata", "uid"], uid);
    object::set(value, &["metadata", "creationTimestamp"], object::seconds(now));
    if value.get("spec").is_some() || definition.custom.is_some() {
        object::set(value, &["metadata", "generation"], 1);
    }
}

fn check_preconditions(
    resource: &Resource,
    current: &Value,
    uid: Option<&str>,
    resource_version: Option<&str>,
) -> ApiResult<()> {
    let name = object::name(current);
    if let Some(uid) = uid
        && uid != object::uid(current)
    {
        let detail = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(current)
        );
        return Err(ApiFailure::conflict(resource, name, &detail));
    }
    if let Some(version) = resource_version
        && version != object::text(current, "/metadata/resourceVersion")
    {
        let detail = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(ApiFailure::conflict(resource, name, detail));
    }
    Ok(())
}

/// The object as it would be after writing one part of it.
fn merge_part(definition: &Definition, current: &Value, new: Value, part: Part) -> Value {
    match part {
        Part::Whole => new,
        Part::Main if definition.status => {
            let mut merged = new;
            match current.get("status") {
                Some(status) => object::set(&mut merged, &["status"], status.clone()),
                None => {
                    object::remove(&mut merged, &["status"]);
                }
            }
            merged
        }
        Part::Main => new,
        Part::Status => {
            let mut merged = current.clone();
            match new.get("status") {
                Some(status) => object::set(&mut merged, &["status"], status.clone()),
                None => {
                    object::remove(&mut merged, &["status"]);
                }
            }
            merged
        }
    }
}

/// Fields that only the server sets stay as they were.
fn keep_server_fields(current: &Value, value: &mut Value) {
    for member in ["apiVersion", "kind"] {
        if let Some(kept) = current.get(member) {
            object::set(value, &[member], kept.clone());
        }
    }
    for member in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "generateName",
    ] {
        match current.pointer("/metadata").and_then(|metadata| metadata.get(member)) {
            Some(kept) => object::set(value, &["metadata", member], kept.clone()),
            None => {
                object::remove(value, &["metadata", member]);
            }
        }
    }
    for member in ["labels", "annotations", "finalizers", "ownerReferences", "selfLink"] {
        let empty = match value.pointer("/metadata").and_then(|metadata| metadata.get(member)) {
            Some(Value::Null) => true,
            Some(Value::Object(fields)) => fields.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            _ => member == "selfLink",
        };
        if empty {
            object::remove(value, &["metadata", member]);
        }
    }
}

fn check_finalizers(definition: &Definition, current: &Value, value: &Value) -> ApiResult<()> {
    if !object::is_deleting(current) {
        return Ok(());
    }
    let before = object::list(current, "/metadata/finalizers");
    let added: Vec<&Value> = object::list(value, "/metadata/finalizers")
        .iter()
        .filter(|finalizer| !before.contains(finalizer))
        .collect();
    if added.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
    );
    Err(ApiFailure::invalid(
        &definition.resource.group,
        &definition.kind,
        object::name(current),
        vec![Cause::forbidden("metadata.finalizers", &detail)],
    ))
}

/// Whether anything outside metadata and status differs.
fn spec_differs(current: &Value, value: &Value) -> bool {
    let none = Map::new();
    let before = current.as_object().unwrap_or(&none);
    let after = value.as_object().unwrap_or(&none);
    let counted = |member: &&String| !matches!(member.as_str(), "metadata" | "status");
    before
        .keys()
        .chain(after.keys())
        .filter(counted)
        .any(|member| before.get(member) != after.get(member))
}

fn bump_generation(current: &Value, value: &mut Value) {
    if let Some(generation) = object::integer(current, "/metadata/generation")
        && spec_differs(current, value)
    {
        object::set(value, &["metadata", "generation"], generation.saturating_add(1));
    }
}

fn bump_generation_for_deletion(current: &Value, value: &mut Value) {
    if let Some(generation) = object::integer(current, "/metadata/generation")
        && !object::is_deleting(current)
    {
        object::set(value, &["metadata", "generation"], generation.saturating_add(1));
    }
}
