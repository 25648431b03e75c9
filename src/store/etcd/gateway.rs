//! The messages of etcd's JSON gateway: protocol buffers as JSON, with bytes in base64 and numbers of
//! 64 bits as texts (etcd's api/etcdserverpb/rpc.proto).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes, or the text of a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Bytes {
        Bytes(text.as_bytes().to_vec())
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Bytes {
        Bytes(text.into_bytes())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Bytes).map_err(serde::de::Error::custom)
    }
}

/// `POST /v3/kv/txn`: if all compares hold `success` is carried out, if not `failure`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "target")]
pub enum Compare {
    /// Whether the value is this one. Of a key that is not there it never is.
    #[serde(rename = "VALUE")]
    Value { key: Bytes, value: Bytes },
    /// Whether it was created at this revision; 0: whether it is not there.
    #[serde(rename = "CREATE")]
    Created { key: Bytes, create_revision: &'static str },
}

impl Compare {
    pub fn is_absent(key: Bytes) -> Compare {
        Compare::Created { key, create_revision: "0" }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Op {
    #[serde(rename = "request_range")]
    Range(Range),
    #[serde(rename = "request_put")]
    Put { key: Bytes, value: Bytes },
    #[serde(rename = "request_delete_range")]
    Delete { key: Bytes },
    #[serde(rename = "request_txn")]
    Txn(Txn),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Range {
    pub key: Bytes,
    /// All keys from `key` to this one, which is not among them; none: `key` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_end: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}

impl Range {
    pub fn one(key: impl Into<Bytes>) -> Range {
        Range { key: key.into(), ..Range::default() }
    }

    /// All keys below `folder`, which ends without a slash.
    pub fn below(folder: &str) -> Range {
        // The slash's successor is the zero.
        Range { key: format!("{folder}/").into(), range_end: Some(format!("{folder}0").into()), limit: None }
    }
}

#[derive(Debug, Default, Deserialize)]
pub struct TxnAnswer {
    /// What is false is left out, as what is empty is everywhere.
    #[serde(default)]
    pub succeeded: bool,
    #[serde(default)]
    pub responses: Vec<Response>,
}

/// The answer to one operation; that of a range is the only one with something to tell.
#[derive(Debug, Default, Deserialize)]
pub struct Response {
    #[serde(default)]
    pub response_range: Found,
}

#[derive(Debug, Default, Deserialize)]
pub struct Found {
    #[serde(default)]
    pub kvs: Vec<Pair>,
    /// Whether the limit has cut off some.
    #[serde(default)]
    pub more: bool,
}

#[derive(Debug, Default, Deserialize)]
pub struct Pair {
    pub key: Bytes,
    #[serde(default)]
    pub value: Bytes,
}

#[derive(Debug, Serialize)]
pub struct Authenticate<'a> {
    pub name: &'a str,
    pub password: &'a str,
}

#[derive(Debug, Deserialize)]
pub struct Authenticated {
    pub token: String,
}

/// What the gateway says of a failure.
#[derive(Debug, Default, Deserialize)]
pub struct Failure {
    #[serde(default)]
    pub message: String,
    /// gRPC's number for it.
    #[serde(default)]
    pub code: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_reads_as_the_gateway_wants_it() {
        let txn = Txn {
            compare: vec![Compare::is_absent("a".into()), Compare::Value { key: "b".into(), value: "c".into() }],
            success: vec![Op::Put { key: "a".into(), value: "".into() }, Op::Delete { key: "b".into() }],
            failure: vec![Op::Range(Range::below("d"))],
        };
        let expected = serde_json::json!({
            "compare": [
                { "target": "CREATE", "key": "YQ==", "create_revision": "0" },
                { "target": "VALUE", "key": "Yg==", "value": "Yw==" },
            ],
            "success": [
                { "request_put": { "key": "YQ==", "value": "" } },
                { "request_delete_range": { "key": "Yg==" } },
            ],
            "failure": [{ "request_range": { "key": "ZC8=", "range_end": "ZDA=" } }],
        });
        assert_eq!(serde_json::to_value(txn).unwrap(), expected);
    }

    #[test]
    fn an_answer_leaves_out_what_is_false_or_empty() {
        let text = r#"{"header":{"cluster_id":"1","revision":"7"},"responses":[{"response_range":{"header":{"revision":"7"},"kvs":[{"key":"YQ==","create_revision":"3"}],"count":"1"}},{"response_put":{"header":{}}}]}"#;
        let answer: TxnAnswer = serde_json::from_str(text).unwrap();
        assert!(!answer.succeeded);
        assert_eq!(answer.responses[0].response_range.kvs[0].key.text(), "a");
        assert!(answer.responses[0].response_range.kvs[0].value.0.is_empty());
        assert!(answer.responses[1].response_range.kvs.is_empty());
    }
}
