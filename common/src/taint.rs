//! Taints, tolerations and whether they match (Kubernetes' rules).

use serde::{Deserialize, Deserializer, Serialize};

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaintEffect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away if they can.
    PreferNoSchedule,
    /// Pods are evicted, too.
    NoExecute,
}

/// A taint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value; empty if absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Effect.
    pub effect: TaintEffect,
}

/// A toleration.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key; empty with `Exists` tolerates everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `Exists` or `Equal` (default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Value for `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Effect; all if absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "effect_or_all")]
    pub effect: Option<TaintEffect>,
    /// For `NoExecute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// Manifests may write "every effect" as an empty text.
fn effect_or_all<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<TaintEffect>, D::Error> {
    #[derive(Deserialize)]
    enum Written {
        NoSchedule,
        PreferNoSchedule,
        NoExecute,
        #[serde(rename = "")]
        All,
    }
    Ok(match Option::<Written>::deserialize(deserializer)? {
        Some(Written::NoSchedule) => Some(TaintEffect::NoSchedule),
        Some(Written::PreferNoSchedule) => Some(TaintEffect::PreferNoSchedule),
        Some(Written::NoExecute) => Some(TaintEffect::NoExecute),
        Some(Written::All) | None => None,
    })
}

impl TaintEffect {
    /// As manifests write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            TaintEffect::NoSchedule => "NoSchedule",
            TaintEffect::PreferNoSchedule => "PreferNoSchedule",
            TaintEffect::NoExecute => "NoExecute",
        }
    }
}

impl std::fmt::Display for Taint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.value.is_empty() {
            write!(formatter, "{}:{}", self.key, self.effect.as_str())
        } else {
            write!(formatter, "{}={}:{}", self.key, self.value, self.effect.as_str())
        }
    }
}

impl Toleration {
    /// Whether it tolerates `taint`.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        let key = self.key.as_deref().unwrap_or_default();
        if self.effect.is_some_and(|effect| effect != taint.effect)
            || (!key.is_empty() && key != taint.key)
        {
            return false;
        }
        match self.operator.as_deref().unwrap_or_default() {
            "" | "Equal" => self.value.as_deref().unwrap_or_default() == taint.value,
            "Exists" => true,
            _ => false,
        }
    }
}

/// Whether a pod with these tolerations may be put on a node with these taints.
/// `PreferNoSchedule` forbids nothing.
///
/// # Errors
/// The first taint that no toleration matches.
pub fn tolerates_all<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Result<(), &'a Taint> {
    let untolerated = taints.iter().find(|taint| {
        taint.effect != TaintEffect::PreferNoSchedule
            && !tolerations.iter().any(|toleration| toleration.tolerates(taint))
    });
    untolerated.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(text: &str) -> Toleration {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn tolerations_match_as_kubernetes_matches_them() {
        let gpu =
            Taint { key: "gpu".into(), value: "a10g".into(), effect: TaintEffect::NoSchedule };
        for (text, expected) in [
            (r#"{"operator":"Exists"}"#, true),
            (r#"{"key":"gpu","operator":"Exists"}"#, true),
            (r#"{"key":"gpu","operator":"Exists","effect":"NoExecute"}"#, false),
            (r#"{"key":"gpu","operator":"Exists","effect":""}"#, true),
            (r#"{"key":"gpu","value":"a10g"}"#, true),
            (r#"{"key":"gpu","operator":"Equal","value":"a10g","effect":"NoSchedule"}"#, true),
            (r#"{"key":"gpu"}"#, false),
            (r#"{"key":"other","operator":"Exists"}"#, false),
            (r#"{"key":"gpu","operator":"Near","value":"a10g"}"#, false),
        ] {
            assert_eq!(toleration(text).tolerates(&gpu), expected, "{text}");
        }
    }

    #[test]
    fn soft_taints_forbid_nothing() {
        let soft =
            Taint { key: "a".into(), value: String::new(), effect: TaintEffect::PreferNoSchedule };
        let hard = Taint { key: "b".into(), value: String::new(), effect: TaintEffect::NoExecute };
        assert_eq!(tolerates_all(std::slice::from_ref(&soft), &[]), Ok(()));
        let taints = [soft, hard.clone()];
        assert_eq!(tolerates_all(&taints, &[]), Err(&hard));
        assert_eq!(tolerates_all(&taints, &[toleration(r#"{"key":"b"}"#)]), Ok(()));
    }
}
