//! AWS' Signature Version 4 in a URL's query.
//!
//! By the description at
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>. The SDKs' own signer
//! brings more of them than an agent has otherwise.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use crate::eks::Credentials;

/// A `GET` without a body, to be signed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presigned<'a> {
    /// Without a scheme.
    pub host: &'a str,
    /// Such as `sts`.
    pub service: &'a str,
    /// Such as `eu-west-1`.
    pub region: &'a str,
    /// What is asked, not encoded.
    pub query: &'a [(&'a str, &'a str)],
    /// Headers beside `host`, whose names are in lower case and come after it; values without spaces at either end.
    pub headers: &'a [(&'a str, &'a str)],
    /// Until when it counts, seconds.
    pub expires: u32,
}

impl Presigned<'_> {
    /// The URL at the host's root, with its signature.
    pub(crate) fn url(&self, credentials: &Credentials, at: Timestamp) -> String {
        let at = at.to_zoned(TimeZone::UTC);
        let date = at.strftime("%Y%m%d").to_string();
        let time = at.strftime("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!("{date}/{}/{}/aws4_request", self.region, self.service);
        let query = self.query(credentials, &scope, &time);
        let canonical = self.canonical(&query);
        let digest = hex(&Sha256::digest(canonical));
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}");
        let first = format!("AWS4{}", credentials.secret_access_key);
        let key = [date.as_str(), self.region, self.service, "aws4_request"]
            .into_iter()
            .fold(first.into_bytes(), |key, part| hmac(&key, part).to_vec());
        let signature = hex(&hmac(&key, &text));
        format!("https://{}/?{query}&X-Amz-Signature={signature}", self.host)
    }

    fn names(&self) -> String {
        let others = self.headers.iter().map(|(name, _)| *name);
        std::iter::once("host").chain(others).collect::<Vec<_>>().join(";")
    }

    /// All of the query but the signature, encoded and in order.
    fn query(&self, credentials: &Credentials, scope: &str, time: &str) -> String {
        let credential = format!("{}/{scope}", credentials.access_key_id);
        let (expires, names) = (self.expires.to_string(), self.names());
        let mut own = vec![
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", time),
            ("X-Amz-Expires", &expires),
            ("X-Amz-SignedHeaders", &names),
        ];
        if !credentials.token.is_empty() {
            own.push(("X-Amz-Security-Token", &credentials.token));
        }
        let all = self.query.iter().copied().chain(own);
        let mut pairs: Vec<_> = all.map(|(name, value)| (encode(name), encode(value))).collect();
        pairs.sort();
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("&")
    }

    fn canonical(&self, query: &str) -> String {
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let no_body = hex(&Sha256::digest(""));
        format!("GET\n/\n{query}\nhost:{}\n{headers}\n{}\n{no_body}", self.host, self.names())
    }
}

/// Everything but letters, digits and `-_.~` as `%XX`.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// HMAC pads a key to its block, and takes the digest of a longer one: done here, it can't fail.
fn hmac(key: &[u8], text: &str) -> [u8; 32] {
    let digest: [u8; 32];
    let key = if key.len() > 64 {
        digest = Sha256::digest(key).into();
        &digest
    } else {
        key
    };
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(place, byte)| *place = *byte);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What AWS' signing test suite signs with.
    fn credentials(token: &str) -> Credentials {
        Credentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            token: token.to_owned(),
            expires: Timestamp::MAX,
        }
    }

    const PLAIN: Presigned<'_> = Presigned {
        host: "example.amazonaws.com",
        service: "service",
        region: "us-east-1",
        query: &[],
        headers: &[],
        expires: 3600,
    };

    fn signature(request: &Presigned<'_>, token: &str) -> String {
        let url = request.url(&credentials(token), "2015-08-30T12:36:00Z".parse().unwrap());
        url.rsplit_once("&X-Amz-Signature=").unwrap().1.to_owned()
    }

    #[test]
    fn signatures_are_those_of_the_test_suite() {
        // get-vanilla-with-session-token
        let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
        let expected = "7ff2b50b376cb4d151970630573d6291dc128cc5c2a12ffb237f73cc53f67b6c";
        assert_eq!(signature(&PLAIN, token), expected);
        // get-vanilla-query-order-encoded
        let query = [("Param-3", "Value3"), ("Param", "Value2"), ("\u{1234}", "Value1")];
        let expected = "c5f1848ceec943ac2ca68ee720460c23aaae30a2300586597ada94c4a65e4787";
        assert_eq!(signature(&Presigned { query: &query, ..PLAIN }, ""), expected);
        // get-header-value-order
        let headers = [("my-header1", "value4,value1,value3,value2")];
        let expected = "313720e71ca6202fdcfa9b20f88de01a4eb0638a83c833b1c184359a4eda864e";
        assert_eq!(signature(&Presigned { headers: &headers, ..PLAIN }, ""), expected);
    }

    #[test]
    fn the_url_holds_what_was_signed() {
        let url = PLAIN.url(&credentials("a+/="), "2015-08-30T12:36:00Z".parse().unwrap());
        let (query, signature) = url.rsplit_once("&X-Amz-Signature=").unwrap();
        assert_eq!(
            query,
            "https://example.amazonaws.com/?X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fservice%2Faws4_request\
             &X-Amz-Date=20150830T123600Z&X-Amz-Expires=3600&X-Amz-Security-Token=a%2B%2F%3D\
             &X-Amz-SignedHeaders=host"
        );
        assert_eq!(signature.len(), 64);
    }

    #[test]
    fn keys_of_any_length_are_taken() {
        // RFC 4231, test cases 2 and 6.
        let short = hmac(b"Jefe", "what do ya want for nothing?");
        assert!(hex(&short).starts_with("5bdcc146bf60754e6a042426089575c7"), "{}", hex(&short));
        let long = hmac(&[0xaa; 131], "Test Using Larger Than Block-Size Key - Hash Key First");
        assert!(hex(&long).starts_with("60e431591ee0b67f0d8a26aacbf5b77f"), "{}", hex(&long));
    }
}
