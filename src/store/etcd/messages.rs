//! The messages of etcd's API that a store needs, with the fields that it needs: numbered as in etcd's
//! api/etcdserverpb/rpc.proto and api/mvccpb/kv.proto.

use prost::{Message, Oneof};

/// `KV.Txn`: if all compares hold `success` is carried out, if not `failure`.
#[derive(Clone, PartialEq, Message)]
pub struct Txn {
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<Op>,
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<Op>,
}

/// Whether something is equal, which is what a result of 0, or none, asks for.
#[derive(Clone, PartialEq, Message)]
pub struct Compare {
    #[prost(enumeration = "Target", tag = "2")]
    target: i32,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(oneof = "Expected", tags = "5, 7")]
    expected: Option<Expected>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Target {
    Version = 0,
    Created = 1,
    Value = 3,
}

#[derive(Clone, PartialEq, Oneof)]
enum Expected {
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    #[prost(bytes, tag = "7")]
    Value(Vec<u8>),
}

impl Compare {
    /// The key is there with this value.
    pub fn is(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Compare {
        let expected = Some(Expected::Value(value.into()));
        Compare { target: Target::Value.into(), key: key.into(), expected }
    }

    /// There is no such key: what was never created was created at revision 0.
    pub fn is_absent(key: impl Into<Vec<u8>>) -> Compare {
        let expected = Some(Expected::CreateRevision(0));
        Compare { target: Target::Created.into(), key: key.into(), expected }
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct Op {
    #[prost(oneof = "Request", tags = "1, 2, 3, 4")]
    request: Option<Request>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Request {
    #[prost(message, tag = "1")]
    Range(Range),
    #[prost(message, tag = "2")]
    Put(Put),
    #[prost(message, tag = "3")]
    Delete(Delete),
    #[prost(message, tag = "4")]
    Txn(Txn),
}

#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Delete {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

impl Op {
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Op {
        Op { request: Some(Request::Put(Put { key: key.into(), value: value.into() })) }
    }

    pub fn delete(key: impl Into<Vec<u8>>) -> Op {
        Op { request: Some(Request::Delete(Delete { key: key.into() })) }
    }
}

impl From<Range> for Op {
    fn from(range: Range) -> Op {
        Op { request: Some(Request::Range(range)) }
    }
}

impl From<Txn> for Op {
    fn from(txn: Txn) -> Op {
        Op { request: Some(Request::Txn(txn)) }
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct Range {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// All keys from `key` to this one, which is not among them; empty: `key` alone.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// 0: none.
    #[prost(int64, tag = "3")]
    pub limit: i64,
}

impl Range {
    pub fn one(key: impl Into<Vec<u8>>) -> Range {
        Range { key: key.into(), ..Range::default() }
    }

    /// All keys below `folder`, which ends without a slash.
    pub fn below(folder: &str) -> Range {
        // The slash's successor is the zero.
        Range { key: format!("{folder}/").into(), range_end: format!("{folder}0").into(), limit: 0 }
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct TxnAnswer {
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<Response>,
}

impl TxnAnswer {
    /// What each range has found; other operations have found nothing.
    pub fn found(self) -> impl Iterator<Item = Found> {
        self.responses.into_iter().map(|response| response.range.unwrap_or_default())
    }
}

/// The answer to one operation; that of a range is the only one with something to tell.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    range: Option<Found>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Found {
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<Pair>,
    /// Whether the limit has cut off some.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Pair {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
}

/// `Auth.Authenticate`.
#[derive(Clone, PartialEq, Message)]
pub struct Authenticate {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub password: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Authenticated {
    #[prost(string, tag = "2")]
    pub token: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field's tag, number and kind in one byte, as protocol buffers have it, and bytes with their length.
    fn bytes(number: u8, text: &str) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }

    fn message(number: u8, fields: &[Vec<u8>]) -> Vec<u8> {
        let fields = fields.concat();
        [vec![number << 3 | 2, u8::try_from(fields.len()).unwrap()], fields].concat()
    }

    fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }

    #[test]
    fn a_transaction_has_the_fields_of_etcds() {
        let txn = Txn {
            compare: vec![Compare::is_absent("a"), Compare::is("b", "c")],
            success: vec![Op::put("a", "v"), Op::delete("b"), Txn::default().into()],
            failure: vec![Range::below("d").into()],
        };
        let expected = [
            message(1, &[number(2, 1), bytes(3, "a"), number(5, 0)]),
            message(1, &[number(2, 3), bytes(3, "b"), bytes(7, "c")]),
            message(2, &[message(2, &[bytes(1, "a"), bytes(2, "v")])]),
            message(2, &[message(3, &[bytes(1, "b")])]),
            message(2, &[message(4, &[])]),
            message(3, &[message(1, &[bytes(1, "d/"), bytes(2, "d0")])]),
        ];
        assert_eq!(txn.encode_to_vec(), expected.concat());
    }

    #[test]
    fn an_answer_is_read_past_what_is_not_needed() {
        let header = message(1, &[number(1, 7)]);
        let pair = message(2, &[bytes(1, "k"), number(2, 3), number(4, 1), bytes(5, "v")]);
        let range = message(1, &[header.clone(), pair, number(3, 1), number(4, 9)]);
        let put = message(2, std::slice::from_ref(&header));
        let answer = [header, number(2, 1), message(3, &[range]), message(3, &[put])].concat();
        let answer = TxnAnswer::decode(answer.as_slice()).unwrap();
        assert!(answer.succeeded);
        let found: Vec<Found> = answer.found().collect();
        assert_eq!(found[0], Found { kvs: vec![Pair { key: "k".into(), value: "v".into() }], more: true });
        assert_eq!(found[1], Found::default());
    }
}
