//! The token by which EKS knows an instance: a signed question to STS, who its role is.
//!
//! EKS' API server passes the question on and believes STS' answer, then calls the role's instances
//! `system:node:` and their private DNS name. The form is described at
//! <https://github.com/kubernetes-sigs/aws-iam-authenticator#api-authorization-from-outside-a-cluster>.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::imds::{UnreadableBody, bad_value, read};
use crate::sign::Presigned;

/// The header that binds a token to one cluster.
const CLUSTER_HEADER: &str = "x-k8s-aws-id";
/// For how long the question may be put. The authenticator takes no more than 60 s of older clients, and a
/// token for [`LIFE`] whatever stands here.
const EXPIRES_SECONDS: u32 = 60;
/// A token ends 15 minutes after it was signed; a minute is for clocks and the way.
const LIFE: SignedDuration = SignedDuration::from_mins(14);
/// When another is signed.
const RENEWED_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// A token of so far ahead was signed by a clock that has been set back since.
const AHEAD: SignedDuration = SignedDuration::from_mins(1);

/// Credentials of the instance's role.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Names them; no secret.
    pub access_key_id: String,
    /// What is signed with.
    pub secret_access_key: String,
    /// Shown with each signature.
    pub token: String,
    /// When they end.
    pub expires: Timestamp,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Reads `iam/security-credentials/`, the name of the instance's role.
///
/// # Errors
/// The first line, if it is no role's name.
pub fn role(body: &str) -> Result<&str, UnreadableBody> {
    let name = body.lines().next().unwrap_or_default().trim();
    let is_name = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte))
        && !name.bytes().all(|byte| byte == b'.');
    if is_name { Ok(name) } else { Err(bad_value("role", name)) }
}

/// Reads `iam/security-credentials/ROLE`.
///
/// # Errors
/// [`UnreadableBody`] names the field; `Code`, where IMDS says that it has no credentials.
pub fn credentials(body: &str) -> Result<Credentials, UnreadableBody> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body {
        code: String,
        access_key_id: Option<String>,
        secret_access_key: Option<String>,
        token: Option<String>,
        expiration: Option<String>,
    }
    let body: Body = read(body)?;
    if body.code != "Success" {
        return Err(bad_value("Code", &body.code));
    }
    let text = |field, value: Option<String>| {
        let value = value.unwrap_or_default();
        // What is wrong with a secret is not shown.
        let is_one = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
        if is_one { Ok(value) } else { Err(bad_value(field, "no text")) }
    };
    let expiration = body.expiration.unwrap_or_default();
    Ok(Credentials {
        access_key_id: text("AccessKeyId", body.access_key_id)?,
        secret_access_key: text("SecretAccessKey", body.secret_access_key)?,
        token: text("Token", body.token)?,
        expires: expiration.trim().parse().map_err(|_| bad_value("Expiration", &expiration))?,
    })
}

/// Reads `placement/region`, or checks a region that was told otherwise.
///
/// # Errors
/// The text, if it can't be part of a host's name.
pub fn region(body: &str) -> Result<&str, UnreadableBody> {
    let text = body.trim();
    let is_region = (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if is_region { Ok(text) } else { Err(bad_value("region", text)) }
}

/// Whether EKS can have a cluster of this name: up to 100 letters, digits, `-` and `_`, the first
/// a letter or digit.
pub fn is_cluster_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=100).contains(&name.len())
        && name.bytes().all(is_inner)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// A signed token.
#[derive(Clone, PartialEq, Eq)]
pub struct EksToken {
    text: String,
    signed: Timestamp,
    ends: Timestamp,
}

impl std::fmt::Debug for EksToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("EksToken");
        shown.field("signed", &self.signed).field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl EksToken {
    /// Signs one for a cluster of a region: `k8s-aws-v1.` and the question's URL in base64.
    pub fn sign(cluster: &str, region: &str, credentials: &Credentials, now: Timestamp) -> Self {
        let question = Presigned {
            host: &format!("sts.{region}.{}", domain(region)),
            service: "sts",
            region,
            query: &[("Action", "GetCallerIdentity"), ("Version", "2011-06-15")],
            headers: &[(CLUSTER_HEADER, cluster)],
            expires: EXPIRES_SECONDS,
        };
        let url = question.url(credentials, now);
        let ends = now.saturating_add(LIFE).unwrap_or(now).min(credentials.expires);
        Self { text: format!("k8s-aws-v1.{}", URL_SAFE_NO_PAD.encode(url)), signed: now, ends }
    }

    /// What is shown to the API server.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it counts.
    pub fn holds(&self, now: Timestamp) -> bool {
        now < self.ends && self.signed.duration_since(now) <= AHEAD
    }

    /// Whether it is time for another.
    pub fn is_due(&self, now: Timestamp) -> bool {
        now.duration_since(self.signed) >= RENEWED_AFTER
            || self.ends.duration_since(now) <= SignedDuration::from_mins(1)
    }
}

/// The domain of a region's services.
fn domain(region: &str) -> &'static str {
    let partitions = [
        ("cn-", "amazonaws.com.cn"),
        ("us-iso-", "c2s.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
        ("eusc-", "amazonaws.eu"),
    ];
    let of_region = partitions.iter().find(|(prefix, _)| region.starts_with(prefix));
    of_region.map_or("amazonaws.com", |(_, domain)| domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"Code":"Success","LastUpdated":"2026-11-05T10:00:00Z","Type":"AWS-HMAC",
        "AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"hidden/secret","Token":"session+token",
        "Expiration":"2026-11-05T16:00:00Z"}"#;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn bodies_are_read_and_secrets_never_shown() {
        let read = credentials(BODY).unwrap();
        assert_eq!(
            (read.access_key_id.as_str(), read.token.as_str()),
            ("ASIAEXAMPLE", "session+token")
        );
        assert_eq!(read.expires, at("2026-11-05T16:00:00Z"));
        let token = EksToken::sign("c", "eu-west-1", &read, at("2026-11-05T10:00:00Z"));
        let shown = format!("{read:?} {token:?}");
        assert!(!shown.contains("secret") && !shown.contains("k8s-aws"), "{shown}");
        for (from, to) in [
            ("Success", "Failed"),
            ("hidden/secret", ""),
            ("hidden/secret", "hidden secret"),
            ("AccessKeyId", "Other"),
            ("2026-11-05T16:00:00Z", "soon"),
        ] {
            let error = credentials(&BODY.replace(from, to)).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(credentials("").is_err());
        assert_eq!(role("node-role\n"), Ok("node-role"));
        for bad in ["", "..", "a/b", "a b", &"a".repeat(65)] {
            assert!(role(bad).is_err(), "{bad}");
        }
        assert_eq!(region(" eu-west-1\n"), Ok("eu-west-1"));
        for bad in ["", "a.b", "EU", "a/b", "a@b"] {
            assert!(region(bad).is_err(), "{bad}");
        }
        for (name, is_one) in [("a-B_1", true), ("", false), ("-a", false), ("a\nb", false)] {
            assert_eq!(is_cluster_name(name), is_one, "{name}");
        }
        assert!(!is_cluster_name(&"a".repeat(101)));
    }

    #[test]
    fn a_token_is_a_question_to_the_regions_sts() {
        let credentials = credentials(BODY).unwrap();
        let url = |region| {
            let token =
                EksToken::sign("my-cluster", region, &credentials, at("2026-11-05T10:00:00Z"));
            let coded = token.text().strip_prefix("k8s-aws-v1.").unwrap().to_owned();
            assert!(!coded.contains('='), "{coded}");
            String::from_utf8(URL_SAFE_NO_PAD.decode(coded).unwrap()).unwrap()
        };
        let asked = url("eu-west-1");
        let (query, _) = asked.rsplit_once("&X-Amz-Signature=").unwrap();
        assert_eq!(
            query,
            "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15\
             &X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=ASIAEXAMPLE%2F20261105%2Feu-west-1%2Fsts%2Faws4_request\
             &X-Amz-Date=20261105T100000Z&X-Amz-Expires=60&X-Amz-Security-Token=session%2Btoken\
             &X-Amz-SignedHeaders=host%3Bx-k8s-aws-id"
        );
        assert!(url("cn-north-1").starts_with("https://sts.cn-north-1.amazonaws.com.cn/?"));
    }

    #[test]
    fn a_token_is_renewed_before_it_ends_and_when_the_clock_was_set() {
        let credentials = credentials(BODY).unwrap();
        let token = EksToken::sign("c", "eu-west-1", &credentials, at("2026-11-05T10:00:00Z"));
        for (now, holds, is_due) in [
            ("2026-11-05T10:00:00Z", true, false),
            ("2026-11-05T10:09:59Z", true, false),
            ("2026-11-05T10:10:00Z", true, true),
            ("2026-11-05T10:13:59Z", true, true),
            ("2026-11-05T10:14:00Z", false, true),
            ("2026-11-05T09:59:30Z", true, false),
            ("2026-11-05T09:58:00Z", false, false),
        ] {
            assert_eq!((token.holds(at(now)), token.is_due(at(now))), (holds, is_due), "{now}");
        }
        // It ends with what it was signed by.
        let late = EksToken::sign("c", "eu-west-1", &credentials, at("2026-11-05T15:55:00Z"));
        assert!(late.holds(at("2026-11-05T15:59:59Z")) && late.is_due(at("2026-11-05T15:59:00Z")));
        assert!(!late.holds(at("2026-11-05T16:00:00Z")));
    }
}
