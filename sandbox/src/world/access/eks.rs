//! Tokens of EKS: a question to STS, signed with what an instance's metadata service gave it. The sandbox is STS and
//! the authenticator in one, and reads the signed URL by itself: nothing here signs.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use drover_common::ec2::InstanceState;
use hmac::{Hmac, KeyInit, Mac};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::world::World;
use crate::world::cloud::{InstanceCredentials, SimulatedInstance};

/// What such tokens begin with.
const PREFIX: &str = "k8s-aws-v1.";
/// As the authenticator has it.
const LONGEST: usize = 4 * 1024;
const LIFE: SignedDuration = SignedDuration::from_mins(15);
/// How far AWS lets clocks differ.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);
const CLUSTER_HEADER: &str = "x-k8s-aws-id";

/// Whether a token says that it is one of EKS.
pub(super) fn is_one(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// The Node that a token's bearer is: its instance's private DNS name, as an access entry for nodes has it.
///
/// # Errors
/// What is wrong with the token.
pub(super) fn node(world: &World, token: &str, now: Timestamp) -> Result<String, &'static str> {
    let coded = token.strip_prefix(PREFIX).filter(|_| token.len() <= LONGEST);
    let url = URL_SAFE_NO_PAD.decode(coded.ok_or("no token of EKS")?).map_err(|_| "no base64")?;
    let url = String::from_utf8(url).map_err(|_| "no text")?;
    let asked = Asked::read(&url, &world.options.region)?;
    let age = now.duration_since(asked.signed);
    if age > LIFE || age < -AHEAD {
        return Err("it has expired, or was signed by a clock of another time");
    }
    let (instance, credentials) = bearer(world, asked.access_key, now).ok_or("nobody's key")?;
    if asked.pairs.get("X-Amz-Security-Token") != Some(&credentials.token) {
        return Err("not the session of that key");
    }
    if asked.signature(&credentials, &world.options.cluster_name) != asked.shown {
        return Err("another signature, or another cluster's");
    }
    Ok(instance.private_dns_name())
}

fn bearer<'w>(
    world: &'w World,
    access_key: &str,
    now: Timestamp,
) -> Option<(&'w SimulatedInstance, InstanceCredentials)> {
    let seed = world.options.seed;
    let off = |instance: &SimulatedInstance| {
        matches!(instance.state, InstanceState::Stopped | InstanceState::Terminated)
    };
    world.cloud.instances().filter(|instance| !off(instance)).find_map(|instance| {
        let own = instance.credentials_in_force(seed, now);
        let found = own.into_iter().find(|one| one.access_key_id == access_key)?;
        Some((instance, found))
    })
}

/// A signed URL, taken apart.
struct Asked<'u> {
    host: &'u str,
    /// As it stands in the URL, without the signature.
    query: String,
    pairs: BTreeMap<String, String>,
    access_key: &'u str,
    /// `DATE/REGION/sts/aws4_request`
    scope: String,
    signed: Timestamp,
    shown: &'u str,
}

impl<'u> Asked<'u> {
    fn read(url: &'u str, region: &str) -> Result<Self, &'static str> {
        let rest = url.strip_prefix("https://").ok_or("not https")?;
        let (host, query) = rest.split_once("/?").ok_or("not at the root")?;
        if host != "sts.amazonaws.com" && host != format!("sts.{region}.amazonaws.com") {
            return Err("not STS");
        }
        let (mut parts, mut pairs, mut shown) = (Vec::new(), BTreeMap::new(), "");
        for part in query.split('&') {
            let (name, value) = part.split_once('=').ok_or("no value")?;
            if name == "X-Amz-Signature" {
                shown = value;
                continue;
            }
            parts.push(part);
            if pairs.insert(name.to_owned(), decode(value).ok_or("badly encoded")?).is_some() {
                return Err("a parameter twice");
            }
        }
        parts.sort_unstable();
        let text = |name: &str| pairs.get(name).map(String::as_str).unwrap_or_default();
        let fixed = [
            ("Action", "GetCallerIdentity"),
            ("Version", "2011-06-15"),
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ];
        if fixed.iter().any(|(name, value)| text(name) != *value) {
            return Err("another question");
        }
        if !text("X-Amz-Expires").parse::<u32>().is_ok_and(|seconds| seconds <= 900) {
            return Err("X-Amz-Expires");
        }
        if text("X-Amz-SignedHeaders") != format!("host;{CLUSTER_HEADER}") {
            return Err("the cluster's name is not signed");
        }
        let signed = DateTime::strptime("%Y%m%dT%H%M%SZ", text("X-Amz-Date"))
            .and_then(|time| time.to_zoned(TimeZone::UTC))
            .map_err(|_| "X-Amz-Date")?
            .timestamp();
        let date = text("X-Amz-Date").split('T').next().unwrap_or_default();
        let scope = text("X-Amz-Credential").split_once('/').map(|(_, scope)| scope.to_owned());
        let scope = scope.ok_or("X-Amz-Credential")?;
        if scope != format!("{date}/{region}/sts/aws4_request") {
            return Err("the scope of another day, region or service");
        }
        // Keys are letters and digits: encoded they are the same.
        let (_, credential) = query.split_once("X-Amz-Credential=").ok_or("X-Amz-Credential")?;
        let access_key = credential.split('%').next().unwrap_or_default();
        Ok(Self { host, query: parts.join("&"), pairs, access_key, scope, signed, shown })
    }

    /// The signature that the bearer of `credentials` would have made for a cluster.
    fn signature(&self, credentials: &InstanceCredentials, cluster: &str) -> String {
        let headers = format!("host:{}\n{CLUSTER_HEADER}:{cluster}\n", self.host);
        let body = hex(&Sha256::digest(""));
        let request = format!("GET\n/\n{}\n{headers}\nhost;{CLUSTER_HEADER}\n{body}", self.query);
        let time = self.pairs.get("X-Amz-Date").map(String::as_str).unwrap_or_default();
        let digest = hex(&Sha256::digest(request));
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{}\n{digest}", self.scope);
        let mut key = format!("AWS4{}", credentials.secret_access_key).into_bytes();
        for part in self.scope.split('/').chain([text.as_str()]) {
            let mut block = [0; 64];
            block.iter_mut().zip(&key).for_each(|(place, byte)| *place = *byte);
            let mut mac = Hmac::<Sha256>::new(&block.into());
            mac.update(part.as_bytes());
            key = mac.finalize().into_bytes().to_vec();
        }
        hex(&key)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = rest.get(2..)?;
    }
    String::from_utf8(bytes).ok()
}
