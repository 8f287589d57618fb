use machine::action::{Action, Request};
use machine::order::{Order, Verb};
use service::Authenticator;

use super::*;

fn refused(path: &str, flag: Option<&str>) -> Refused {
    Refused { path: path.into(), flag: flag.map(str::to_owned), why: format!("{path} is wrong") }
}

const A: (&str, &str) = ("a", "/d/a.yaml");
const B: (&str, &str) = ("b", "/d/b.yaml");

/// What is refused, by path and name.
type Wrong<'a> = &'a [(&'a str, Option<&'a str>)];
/// One reading.
type Read<'a> = (Wrong<'a>, &'a [(&'a str, &'a str)], bool);

/// Whether it is held after each of these readings: what is refused, which flags there are, and whether it has been long.
fn held(readings: &[Read<'_>]) -> Vec<bool> {
    let (hub, mut missing) = (Hub::new(Authenticator::listed()), Missing::new());
    let mut after = |(wrong, flags, long): &Read<'_>| {
        let flags: Vec<_> = flags.iter().map(|(name, path)| (*name, Path::new(*path))).collect();
        missing.take(&hub, wrong.iter().map(|(path, flag)| refused(path, *flag)).collect(), &flags, |_| *long);
        missing.holds().is_some()
    };
    readings.iter().map(&mut after).collect()
}

/// T27: until whatever was missing has begun, or was away for long enough; and only since the controller began.
#[test]
fn what_flags_share_waits_for_those_that_are_missing() {
    let none: &[(&str, Option<&str>)] = &[];
    let (unread, named) = ([("/d/b.yaml", None)], [("/d/b.yaml", Some("b"))]);
    assert_eq!(held(&[(none, &[A], false), (&unread, &[A], false)]), [false, false], "who comes later");
    assert_eq!(held(&[(&unread, &[A], true), (none, &[A, B], false)]), [true, false]);
    assert_eq!(held(&[(&unread, &[A], true), (&named, &[A], true), (none, &[A, B], false)]), [true, true, false]);
    assert_eq!(held(&[(&named, &[A], false), (none, &[A], false), (none, &[A], true)]), [true, true, false]);
    assert_eq!(held(&[(&named, &[A], false), (none, &[A], false), (&named, &[A], true)]), [true, true, true]);
    let other = [A, ("c", "/d/b.yaml")];
    assert_eq!(held(&[(&named, &[A], false), (none, &other, false), (none, &other, true)]), [true, true, false]);
    let two = [("/d/b.yaml", None), ("/d/c.yaml", None)];
    assert_eq!(held(&[(&two, &[A], false), (&two[1..], &[A, B], false)]), [true, true]);
    assert_eq!(held(&[(&two, &[A], false), (&two[1..], &[A], true), (none, &[A, B], false)]), [true, true, true]);
    assert_eq!(held(&[(&[("/d", None)], &[], false), (none, &[A], false)]), [true, false], "a folder");
}

/// T27: what is asked of a flag that has not begun is not done later.
#[test]
fn a_flag_that_is_missing_refuses_what_is_asked() {
    let hub = Hub::new(Authenticator::listed()).with_orders();
    let mut missing = Missing::new();
    missing.take(&hub, vec![refused("/d/b.yaml", Some("b"))], &[], |_| false);
    let request = Request { id: "1".to_owned(), action: Action::Promote, switch: None };
    assert!(hub.requests.push("b", request));
    let (verb, version, force, started) = (Verb::Stop, "v1".to_owned(), true, None);
    assert!(hub.orders.as_ref().unwrap().push("b", Order { id: "2".to_owned(), verb, version, force, started }));
    missing.show(&hub);
    let status = &missing.shown["b"].status;
    assert!(status.last_request.as_ref().unwrap().refused.is_some());
    assert!(status.answered_order("2").unwrap().refused.is_some());
    assert!(hub.requests.next_request("b", |_| false).is_none());
    assert!(hub.orders.as_ref().unwrap().next_request("b", |_| false).is_none());
}
