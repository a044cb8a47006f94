use http::Request;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::gateway::table::tests::route;

fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn kind_of(media: &str) -> Result<Kind, u16> {
    kind(&parts("POST", "/", &[("content-type", media)]).headers, true)
        .map_err(|refusal| refusal.status.as_u16())
}

fn message(parts: &Parts, body: &[u8]) -> Result<Value, Refusal> {
    let kind = kind(&parts.headers, !body.is_empty())?;
    let target = Target::of(parts.uri.path()).unwrap();
    let stored = Understood::of(parts, &target, "r-1", kind, body)?.message(&route("orders", "u"), &key())?;
    assert_eq!(stored.subject, "millrace.flow.shop.orders.a");
    let message = value(&stored.payload);
    assert_eq!(message["id"], json!(stored.id));
    Ok(message)
}

fn key() -> MessageKey {
    MessageKey::new(&[1; 32]).unwrap()
}

fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
}

#[test]
fn the_methods_and_the_size_of_a_route_are_kept() {
    let all = Route { max_body: 4, ..(*route("orders", "u")).clone() };
    let post = Route { get: false, ..all.clone() };
    let status = |route: &Route, method: &str, length| {
        admit(route, &parts(method, "/", &[]), length).map_err(|refusal| refusal.status.as_u16())
    };
    assert_eq!((status(&all, "GET", 0), status(&all, "POST", 4)), (Ok(()), Ok(())));
    assert_eq!((status(&all, "POST", 5), status(&all, "POST", u64::MAX)), (Err(413), Err(413)));
    assert_eq!(
        (status(&post, "GET", 0), status(&all, "DELETE", 9), status(&all, "OPTIONS", 0)),
        (Err(405), Err(405), Err(405))
    );
}

#[test]
fn json_forms_and_text_are_taken_and_nothing_else() {
    for media in [
        "application/json",
        "APPLICATION/JSON; charset=\"UTF-8\"",
        "application/cloudevents+json",
        "text/json",
    ] {
        assert_eq!(kind_of(media), Ok(Kind::Json), "{media}");
    }
    assert_eq!(kind_of("application/x-www-form-urlencoded"), Ok(Kind::Form));
    assert_eq!((kind_of("text/plain"), kind_of("text/csv; charset=utf8")), (Ok(Kind::Text), Ok(Kind::Text)));
    let others = [
        "application/xml",
        "multipart/form-data; boundary=x",
        "image/png",
        "json",
        "",
        "text/plain; charset=latin1",
        "application/jsonp",
    ];
    for media in others {
        assert_eq!(kind_of(media), Err(415), "{media}");
    }
    let of = |headers: &[(&str, &str)], has_body| kind(&parts("POST", "/", headers).headers, has_body);
    assert_eq!(of(&[], false), Ok(Kind::Nothing));
    assert_eq!(of(&[], true).unwrap_err().status.as_u16(), 415);
    let json = ("content-type", "application/json");
    assert!(of(&[json, json], true).is_err());
    assert!(of(&[json, ("content-encoding", "gzip")], true).is_err());
    assert_eq!(of(&[json, ("content-encoding", "identity")], true), Ok(Kind::Json));
}

#[test]
fn an_unsupported_kind_is_told_what_is_supported() {
    let refusal =
        kind(&parts("POST", "/", &[("content-type", "application/xml")]).headers, true).unwrap_err();
    assert_eq!(
        refusal.message,
        "`application/xml` is not supported: send JSON (application/json or any +json), a form \
         (application/x-www-form-urlencoded) or text (text/*)"
    );
}

#[test]
fn a_body_is_read_as_its_kind_says() {
    assert_eq!(body(Kind::Json, br#"[1,{"a":null}]"#), Ok(json!([1, {"a": null}])));
    assert_eq!(body(Kind::Form, b"a=1&b=x+y&a=%C3%BC&a="), Ok(json!({"a": ["1", "ü", ""], "b": "x y"})));
    assert_eq!(body(Kind::Text, "grüezi".as_bytes()), Ok(json!("grüezi")));
    let empty = |kind| body(kind, b"").unwrap();
    assert_eq!(
        (empty(Kind::Nothing), empty(Kind::Json), empty(Kind::Form)),
        (json!({}), json!({}), json!({}))
    );
    assert_eq!(empty(Kind::Text), json!(""));
}

#[test]
fn what_is_broken_is_refused_with_where() {
    let code =
        |kind, bytes: &[u8]| body(kind, bytes).map_err(|refusal| (refusal.status.as_u16(), refusal.code));
    assert_eq!(code(Kind::Json, b"{\"a\":"), Err((400, "InvalidJson")));
    assert_eq!(code(Kind::Json, b"1 2"), Err((400, "InvalidJson")));
    assert_eq!(code(Kind::Json, b"\"\xff\""), Err((400, "InvalidUtf8")));
    assert_eq!(code(Kind::Text, b"\xc3"), Err((400, "InvalidUtf8")));
    assert_eq!(code(Kind::Form, b"a=%ff"), Err((400, "InvalidUtf8")));
    let message = body(Kind::Json, b"{\"a\": tru}").unwrap_err().message;
    assert_eq!(
        message,
        "the body is no JSON: expected ident at line 1 column 10; send JSON, or another `Content-Type`"
    );
}

#[test]
fn a_million_brackets_are_refused() {
    for bracket in ["[", "{\"a\":"] {
        let refusal = body(Kind::Json, bracket.repeat(200_000).as_bytes()).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.code), (400, "InvalidJson"));
    }
}

#[test]
fn the_deepest_body_can_be_read_by_whoever_gets_its_message() {
    let nested = |levels| [vec![b'['; levels], vec![b']'; levels]].concat();
    let parts = parts("POST", "/hook/shop/orders", &[("content-type", "application/json")]);
    let deepest = message(&parts, &nested(100)).unwrap();
    assert!(serde_json::from_str::<Value>(&json!({"messages": [deepest]}).to_string()).is_ok());
    assert_eq!(
        message(&parts, &nested(101)).unwrap_err().message,
        "the body is no JSON: more than 100 levels deep; send JSON, or another `Content-Type`"
    );
    let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    assert!(message(&parts, objects(100).as_bytes()).is_ok());
    assert!(message(&parts, objects(101).as_bytes()).is_err());
}

#[test]
fn a_post_gives_body_query_and_headers() {
    let headers = [
        ("content-type", "application/json"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ];
    let parts = parts("POST", "http://gateway/hook/shop/orders/new/%C3%BC?dry=1&tag=a&tag=b", &headers);
    let mut message = message(&parts, b"{\"total\":1}").unwrap();
    message.as_object_mut().unwrap().remove("id");
    assert_eq!(
        message,
        json!({
            "attachments": {}, "body": {"total": 1}, "metadata": {},
            "headers": {
                "content-type": "application/json", "x-a": "1, 2", "cookie": "a=1; b=2", "x-request-id": "r-1",
            },
            "method": "POST", "url": "/hook/shop/orders/new/%C3%BC?dry=1&tag=a&tag=b",
            "query": {"dry": "1", "tag": ["a", "b"]}, "pathSuffix": "new/ü",
        })
    );
}

#[test]
fn a_get_gives_its_query_as_the_body_and_its_headers() {
    let parts = parts("GET", "/hook/shop/orders?param1=value&param2=value", &[("x-a", "1")]);
    let mut message = message(&parts, b"").unwrap();
    message.as_object_mut().unwrap().remove("id");
    let query = json!({"param1": "value", "param2": "value"});
    assert_eq!(
        message,
        json!({
            "attachments": {}, "body": query, "metadata": {}, "headers": {"x-a": "1", "x-request-id": "r-1"},
            "method": "GET", "url": "/hook/shop/orders?param1=value&param2=value", "query": query, "pathSuffix": "",
        })
    );
}

#[test]
fn a_path_or_query_that_hides_no_utf8_is_refused() {
    let status = |uri| message(&parts("GET", uri, &[]), b"").unwrap_err().status.as_u16();
    assert_eq!(status("/hook/shop/orders/%ff"), 400);
    assert_eq!(status("/hook/shop/orders?a=%ff"), 400);
    assert!(message(&parts("GET", "/hook/shop/orders?rebate=50%", &[]), b"").is_ok());
}

#[test]
fn the_largest_body_makes_a_message_that_fits_however_it_is_written() {
    // Each of these bytes takes six in JSON.
    let headers = [("content-type", "text/plain")];
    let payload =
        message(&parts("POST", "/hook/shop/orders", &headers), &vec![1; 1 << 20]).unwrap().to_string();
    assert!(payload.len() > 6 << 20 && payload.len() < MAX_MESSAGE, "{}", payload.len());
}

proptest! {
    #[test]
    fn any_body_of_any_kind_is_a_value_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..200), which in 0..4) {
        let kind = [Kind::Nothing, Kind::Json, Kind::Form, Kind::Text][usize::try_from(which).unwrap()];
        let read = body(kind, &bytes);
        prop_assert!(read.is_ok() || [400, 415].contains(&read.unwrap_err().status.as_u16()));
    }

    #[test]
    fn any_json_comes_through_unchanged(keys in prop::collection::btree_map("\\PC{0,8}", any::<i64>(), 0..8)) {
        let value = json!(keys);
        prop_assert_eq!(body(Kind::Json, value.to_string().as_bytes()), Ok(value));
    }

    #[test]
    fn any_fields_come_back(pairs in prop::collection::vec(("[a-c]{1,2}", "\\PC{0,6}"), 0..8)) {
        let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        let fields = fields(&text).unwrap();
        for (key, _) in &pairs {
            let all: Vec<_> = pairs.iter().filter(|(other, _)| other == key).map(|(_, value)| json!(value)).collect();
            let expected = if let [one] = &all[..] { one.clone() } else { Value::Array(all) };
            prop_assert_eq!(&fields[key], &expected);
        }
    }
}
