//! ValidatingAdmissionPolicies, as their bindings ask for them.
//!
//! What is not simulated makes a policy fail, so that its `failurePolicy` decides: parameters, and the
//! `authorizer` variable.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Context, Program};
use serde_json::{Value, json};

use crate::world::access::User;
use crate::world::api::events;
use crate::world::api::expression::{ENVIRONMENT, map_of, value_of};
use crate::world::failure::{ApiFailure, ApiResult, Cause};
use crate::world::object;
use crate::world::resource::{
    Definition, EVENTS, NAMESPACES, NEW_EVENTS, VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS,
};
use crate::world::store::Store;
use crate::world::store::selector::Selector;

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) user: &'a User,
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub(super) operation: &'a str,
    pub(super) definition: &'a Definition,
    pub(super) subresource: &'a str,
    /// What would be there.
    pub(super) object: Option<&'a Value>,
    /// What is there.
    pub(super) old: Option<&'a Value>,
    pub(super) dry_run: bool,
}

impl Request<'_> {
    fn subject(&self) -> &Value {
        self.object.or(self.old).unwrap_or(&Value::Null)
    }

    fn version(&self) -> &str {
        self.definition.versions.first().map_or("v1", String::as_str)
    }

    /// The `request` variable.
    fn to_json(self) -> Value {
        let resource = &self.definition.resource;
        json!({
            "kind": {
                "group": resource.group, "version": self.version(), "kind": self.definition.kind,
            },
            "resource": {
                "group": resource.group, "version": self.version(), "resource": resource.plural,
            },
            "subResource": self.subresource,
            "name": object::name(self.subject()),
            "namespace": object::namespace(self.subject()),
            "operation": self.operation,
            "userInfo": self.user.to_json(),
            "dryRun": self.dry_run,
        })
    }
}

/// What is judged, as the other API that shows it has it.
struct Equivalent {
    definition: Arc<Definition>,
    object: Option<Value>,
    old: Option<Value>,
}

impl Equivalent {
    /// Events alone have two. Which of them was asked is not known here: policies match by either, core/v1 first, as
    /// if none had `matchPolicy: Exact`.
    fn of(store: &Store, request: &Request<'_>) -> Option<Self> {
        if request.definition.resource != EVENTS {
            return None;
        }
        let shown = |value: Option<&Value>| value.cloned().map(events::from_core);
        Some(Self {
            definition: Arc::clone(store.registry().get(&NEW_EVENTS)?),
            object: shown(request.object),
            old: shown(request.old),
        })
    }

    fn request<'a>(&'a self, original: &Request<'a>) -> Request<'a> {
        Request {
            definition: &self.definition,
            object: self.object.as_ref(),
            old: self.old.as_ref(),
            ..*original
        }
    }
}

/// Why a policy denies.
struct Denial {
    message: String,
    reason: String,
}

/// Judges a request by every bound policy that matches it.
///
/// # Errors
/// 403 or 422, as the policy's validation says.
pub(super) fn check(store: &Store, request: &Request<'_>) -> ApiResult<()> {
    let other = Equivalent::of(store, request);
    for (key, binding) in store.iter(&VALIDATING_ADMISSION_POLICY_BINDINGS) {
        let denies =
            object::list(binding, "/spec/validationActions").iter().any(|action| action == "Deny");
        let policy_name = object::text(binding, "/spec/policyName");
        let Some(policy) =
            store.find(&VALIDATING_ADMISSION_POLICIES, "", policy_name).filter(|_| denies)
        else {
            continue;
        };
        let constraints = policy.pointer("/spec/matchConstraints");
        let applies = |request: &Request<'_>| {
            matches(store, constraints, request)
                && binding
                    .pointer("/spec/matchResources")
                    .is_none_or(|also| matches(store, Some(also), request))
        };
        let other = other.as_ref().map(|other| other.request(request));
        let Some(request) = [Some(*request), other].into_iter().flatten().find(applies) else {
            continue;
        };
        if let Err(denial) = judge(store, policy, &request) {
            return Err(refuse(&request, policy_name, &key.name, &denial));
        }
    }
    Ok(())
}

fn refuse(request: &Request<'_>, policy: &str, binding: &str, denial: &Denial) -> Box<ApiFailure> {
    let message = format!(
        "ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {}",
        denial.message
    );
    let (resource, name) = (&request.definition.resource, object::name(request.subject()));
    match denial.reason.as_str() {
        "" | "Invalid" => {
            let cause = Cause { reason: "FieldValueInvalid", message, field: String::new() };
            ApiFailure::invalid(&resource.group, &request.definition.kind, name, vec![cause])
        }
        _ => ApiFailure::forbidden(resource, name, &message),
    }
}

/// Whether `matchConstraints` or `matchResources` select a request; rules that are left out select all.
fn matches(store: &Store, constraints: Option<&Value>, request: &Request<'_>) -> bool {
    let Some(constraints) = constraints else { return true };
    let rules = object::list(constraints, "/resourceRules");
    let excluded = object::list(constraints, "/excludeResourceRules");
    (rules.is_empty() || rules.iter().any(|rule| rule_matches(rule, request)))
        && !excluded.iter().any(|rule| rule_matches(rule, request))
        && selects(constraints.get("objectSelector"), request.subject())
        && in_namespace(store, constraints.get("namespaceSelector"), request)
}

fn in_namespace(store: &Store, selector: Option<&Value>, request: &Request<'_>) -> bool {
    match store.find(&NAMESPACES, "", object::namespace(request.subject())) {
        Some(namespace) => selects(selector, namespace),
        // What has no namespace is selected by every namespace selector.
        None => true,
    }
}

fn selects(selector: Option<&Value>, value: &Value) -> bool {
    selector.is_none_or(|selector| {
        Selector::from_label_selector(Some(selector))
            .is_some_and(|selector| selector.matches(value))
    })
}

fn rule_matches(rule: &Value, request: &Request<'_>) -> bool {
    let has = |member: &str, wanted: &str| {
        object::list(rule, member).iter().any(|own| own == "*" || own == wanted)
    };
    let resource = &request.definition.resource;
    let listed = object::list(rule, "/resourceNames");
    let scope = object::text(rule, "/scope");
    let resource_fits = if request.subresource.is_empty() {
        has("/resources", &resource.plural)
    } else {
        let full = format!("{}/{}", resource.plural, request.subresource);
        // `*` alone leaves subresources out.
        object::list(rule, "/resources")
            .iter()
            .filter_map(Value::as_str)
            .any(|own| own == full || own == "*/*" || own == format!("*/{}", request.subresource))
    };
    has("/apiGroups", &resource.group)
        && has("/apiVersions", request.version())
        && has("/operations", request.operation)
        && resource_fits
        && (listed.is_empty() || listed.iter().any(|name| name == object::name(request.subject())))
        && match scope {
            "Cluster" => !request.definition.namespaced,
            "Namespaced" => request.definition.namespaced,
            _ => true,
        }
}

/// Runs a policy's conditions, variables and validations.
fn judge(store: &Store, policy: &Value, request: &Request<'_>) -> Result<(), Denial> {
    let strict = object::text(policy, "/spec/failurePolicy") != "Ignore";
    let failed = |what: String| {
        if strict { Err(Denial { message: what, reason: String::new() }) } else { Ok(()) }
    };
    if policy.pointer("/spec/paramKind").is_some_and(|kind| !kind.is_null()) {
        return failed("parameters are not simulated".to_owned());
    }
    let mut scope = Scope::new(store, request);
    for condition in object::list(policy, "/spec/matchConditions") {
        match scope.run(object::text(condition, "/expression")) {
            Ok(cel::Value::Bool(true)) => {}
            Ok(_) => return Ok(()),
            Err(error) => return failed(format!("match condition: {error}")),
        }
    }
    for variable in object::list(policy, "/spec/variables") {
        // A variable that can't be computed fails where it is used.
        if let Ok(value) = scope.run(object::text(variable, "/expression")) {
            scope.variables.insert(object::text(variable, "/name").to_owned(), value);
        }
    }
    for validation in object::list(policy, "/spec/validations") {
        let expression = object::text(validation, "/expression");
        match scope.run(expression) {
            Ok(cel::Value::Bool(true)) => {}
            Ok(_) => {
                let reason = object::text(validation, "/reason").to_owned();
                return Err(Denial { message: scope.explain(validation, expression), reason });
            }
            Err(error) => failed(format!("expression '{expression}' resulted in error: {error}"))?,
        }
    }
    Ok(())
}

/// What expressions speak of.
struct Scope {
    request: cel::Value,
    object: cel::Value,
    old: cel::Value,
    namespace: cel::Value,
    variables: BTreeMap<String, cel::Value>,
}

impl Scope {
    fn new(store: &Store, request: &Request<'_>) -> Self {
        let or_null = |value: Option<&Value>| value.map_or(cel::Value::Null, value_of);
        let namespace = store.find(&NAMESPACES, "", object::namespace(request.subject()));
        Self {
            request: value_of(&request.to_json()),
            object: or_null(request.object),
            old: or_null(request.old),
            namespace: or_null(namespace.map(Arc::as_ref)),
            variables: BTreeMap::new(),
        }
    }

    fn run(&self, expression: &str) -> Result<cel::Value, String> {
        let program: Program =
            ENVIRONMENT.compile(expression).map_err(|error| error.to_string())?;
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        for (name, value) in [
            ("request", &self.request),
            ("object", &self.object),
            ("oldObject", &self.old),
            ("namespaceObject", &self.namespace),
        ] {
            context.add_variable_from_value(name, value.clone());
        }
        let variables = self.variables.iter().map(|(name, value)| (name.clone(), value.clone()));
        context.add_variable_from_value("variables", map_of(variables));
        program.execute(&context).map_err(|error| error.to_string())
    }

    /// What a failed validation says.
    fn explain(&self, validation: &Value, expression: &str) -> String {
        let told = match object::text(validation, "/messageExpression") {
            "" => None,
            source => match self.run(source) {
                Ok(cel::Value::String(text)) => Some(text.trim().to_owned()),
                _ => None,
            },
        };
        let fixed = object::text(validation, "/message").trim();
        match (told.filter(|text| !text.is_empty()), fixed) {
            (Some(told), _) => told,
            (None, "") => format!("failed expression: {}", expression.trim()),
            (None, fixed) => fixed.to_owned(),
        }
    }
}
