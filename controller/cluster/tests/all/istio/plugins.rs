//! Which plugins are looked at again.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::istio::plugin::{Part, Target, take_fitting};
use cluster::istio::plugins::{Plugins, Shown};

use super::record;

const SHOWN: Shown = Shown { versions: (Some(7), None), extends: false, known: true };

fn target(namespace: &str) -> Target {
    Target { namespace: namespace.to_owned(), labels: BTreeMap::new() }
}

fn part(uid: &str, namespace: &str, epoch: u64) -> Part {
    Part {
        age: (None, uid.to_owned()),
        targets: [target(namespace)].into(),
        header: "x-version".to_owned(),
        record: record(uid, epoch, "v1", &["v1"]),
    }
}

fn flags(uids: &[&str]) -> BTreeMap<String, String> {
    uids.iter().map(|uid| ((*uid).to_owned(), format!("shop/{uid}"))).collect()
}

fn look(plugins: &mut Plugins, namespace: &str) {
    let target = target(namespace);
    let (_, revision) = plugins.parts_of(&target);
    plugins.looked(&target, Some((revision, SHOWN)), None);
}

// C04, C28
#[test]
fn a_plugin_is_looked_at_when_a_part_of_it_has_changed() {
    let mut plugins = Plugins::default();
    plugins.retain_parts(&flags(&["a", "b"]));
    plugins.offer("a", part("a", "shop", 1));
    plugins.offer("b", part("b", "bank", 1));
    assert!(plugins.is_due(&target("shop"), SHOWN) && plugins.is_due(&target("bank"), SHOWN));
    look(&mut plugins, "shop");
    look(&mut plugins, "bank");
    let due = |plugins: &Plugins| {
        ["shop", "bank", "mall"].into_iter().filter(|place| plugins.is_due(&target(place), SHOWN)).collect::<Vec<_>>()
    };
    plugins.looked(&target("mall"), Some((0, SHOWN)), None);
    assert_eq!(due(&plugins), Vec::<&str>::new());
    // At rest every flag says the same again, and again.
    plugins.offer("a", part("a", "shop", 1));
    plugins.retain_parts(&flags(&["a", "b"]));
    assert_eq!(due(&plugins), Vec::<&str>::new());
    plugins.offer("a", part("a", "shop", 2));
    assert_eq!(due(&plugins), ["shop"]);
    look(&mut plugins, "shop");
    // It moves: what it leaves is looked at, too.
    plugins.offer("a", part("a", "mall", 2));
    assert_eq!(due(&plugins), ["shop", "mall"]);
    look(&mut plugins, "shop");
    look(&mut plugins, "mall");
    // Somebody else has written it.
    let theirs = Shown { versions: (Some(8), None), ..SHOWN };
    assert!(plugins.is_due(&target("shop"), theirs));
    // A flag is gone.
    plugins.retain_parts(&flags(&["b"]));
    assert_eq!(plugins.targets().iter().map(|target| target.namespace.as_str()).collect::<Vec<_>>(), ["bank"]);
    assert_eq!(due(&plugins), ["shop", "bank", "mall"]);
}

// C20: what was written and is deleted before a watch has shown it.
#[test]
fn a_plugin_that_was_not_shown_yet_is_looked_at_after_a_while() {
    let mut plugins = Plugins::default();
    plugins.offer("a", part("a", "shop", 1));
    let unseen = Shown { versions: (None, None), extends: false, known: false };
    let (_, revision) = plugins.parts_of(&target("shop"));
    plugins.looked(&target("shop"), Some((revision, unseen)), None);
    assert!(plugins.is_due(&target("shop"), unseen));
    assert!(plugins.rest(&target("shop"), Duration::from_secs(60)).is_some());
    look(&mut plugins, "bank");
    assert_eq!(plugins.rest(&target("bank"), Duration::from_secs(60)), None);
}

// C28: a thousand flags, two of which do not fit beside an older one.
#[test]
fn what_fits_is_found_by_few_checks() {
    let all: Vec<u32> = (0..1_000).collect();
    let mut checks = 0;
    let mut taken = vec![];
    let clash = |flags: &[u32]| [333, 700].iter().any(|bad| flags.contains(bad) && flags.len() > 1);
    take_fitting(&mut taken, &all, &mut |flags| {
        checks += 1;
        !clash(flags)
    });
    assert_eq!(taken, all.iter().copied().filter(|one| ![333, 700].contains(one)).collect::<Vec<_>>());
    assert!(checks < 60, "{checks}");
    (taken, checks) = (vec![], 0);
    take_fitting(&mut taken, &all[..300], &mut |_| {
        checks += 1;
        true
    });
    assert_eq!((taken.len(), checks), (300, 1));
}
