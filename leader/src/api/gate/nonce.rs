//! The way in for agents without a token of their own for leaders: they write a nonce on their Node,
//! which nobody else may (NodeRestriction), and show the token that they got along with it.
//!
//! Nothing is remembered: the token bears the node and the nonce, sealed (HMAC-SHA256) with a key that
//! only this replica has, and only for as long as it runs.

use std::time::{Duration, SystemTime};

use drover_common::id::NodeName;
use drover_common::protocol::NonceAnswer;
use hmac::{Hmac, KeyInit, Mac};
use rustls::crypto::ring::default_provider;
use sha2::Sha256;

/// What tokens begin with.
const PREFIX: &str = "drover-node";
/// How long a token counts.
const TOKEN_COUNTS: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes tokens and knows them again.
pub(super) struct Nonces {
    key: [u8; 64],
}

/// What a token says that is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) node: NodeName,
    pub(super) nonce: String,
}

impl Nonces {
    /// A fresh key.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn new() -> Result<Self, rustls::crypto::GetRandomFailed> {
        Ok(Self { key: random()? })
    }

    /// A nonce for a node, and the token for whoever asks.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn issue(
        &self,
        node: &NodeName,
        now: SystemTime,
    ) -> Result<NonceAnswer, rustls::crypto::GetRandomFailed> {
        let nonce = format!("{}-{}", seconds(now), hex(&random::<16>()?));
        let seal = hex(&self.seal(node.as_str(), &nonce).finalize().into_bytes());
        // Names of nodes have dots, so the name comes last.
        let token = format!("{PREFIX}.{nonce}.{seal}.{node}");
        Ok(NonceAnswer { nonce, token })
    }

    /// Whether a token is of this kind, whoever made it.
    pub(super) fn is_meant(token: &str) -> bool {
        token.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with('.'))
    }

    /// What a token of this replica proves once the Node bears the nonce; `None` if it was made by
    /// another, or too long ago.
    pub(super) fn read(&self, token: &str, now: SystemTime) -> Option<Proof> {
        let mut parts = token.splitn(4, '.');
        let (_, nonce, seal, node) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        self.seal(node, nonce).verify_slice(&unhex(seal)?).ok()?;
        let made: u64 = nonce.split_once('-')?.0.parse().ok()?;
        let age = seconds(now).checked_sub(made)?;
        (age < TOKEN_COUNTS.as_secs())
            .then(|| Proof { node: NodeName::from(node), nonce: nonce.to_owned() })
    }

    fn seal(&self, node: &str, nonce: &str) -> Hmac<Sha256> {
        let mut seal = Hmac::<Sha256>::new(&self.key.into());
        seal.update(nonce.as_bytes());
        seal.update(b".");
        seal.update(node.as_bytes());
        seal
    }
}

fn random<const N: usize>() -> Result<[u8; N], rustls::crypto::GetRandomFailed> {
    let mut bytes = [0; N];
    default_provider().secure_random.fill(&mut bytes)?;
    Ok(bytes)
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, d| byte << 4 | d)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_proves_what_it_was_made_for_and_nothing_else() {
        let (ours, others) = (Nonces::new().unwrap(), Nonces::new().unwrap());
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let node = NodeName::from("ip-10-0-0-1.ec2.internal");
        let NonceAnswer { nonce, token } = ours.issue(&node, now).unwrap();
        assert!(Nonces::is_meant(&token));
        assert_eq!(ours.read(&token, now), Some(Proof { node, nonce: nonce.clone() }));
        assert_eq!(others.read(&token, now), None);
        let late = now + TOKEN_COUNTS;
        assert!(ours.read(&token, late - Duration::from_secs(1)).is_some());
        assert_eq!(ours.read(&token, late), None);
        assert_eq!(ours.read(&token, now - Duration::from_secs(1)), None);
        let other_node = token.replace("10-0-0-1", "10-0-0-2");
        let other_time = token.replace("18000", "19000");
        for forged in [
            &other_node,
            &other_time,
            "drover-node",
            "drover-node.1-a.zz.n",
            "",
            "drover-node.1-a.é.n",
        ] {
            assert_eq!(ours.read(forged, now), None, "{forged}");
        }
        assert_ne!(ours.issue(&"n".into(), now).unwrap().nonce, nonce);
        assert!(!Nonces::is_meant("drover-nodes.x"));
    }
}
