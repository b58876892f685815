//! What operators do with links, from the command line to what clients see.

use crate::harness::{Demo, alone, said};
use serde_json::Value as Json;

fn does(demo: &Demo, words: &[&str]) -> String {
    demo.does(&[&["link"], words].concat())
}

#[test]
fn a_link_is_paused_resumed_and_fenced() {
    let _alone = alone();
    let demo = Demo::start(&["--rtt", "20ms"]);
    let (mut east, mut west) = (demo.redis("east", 0), demo.redis("west", 0));

    // A dry run tells, and changes nothing.
    let plan = does(&demo, &["pause", "west", "--dry-run"]);
    assert!(plan.contains("groups are concerned") && plan.contains("nothing was done"), "{plan}");
    east.call(&["SET", "dry", "run"]);
    west.becomes(&["GET", "dry"], "run");
    demo.link_becomes("east", "is live", |link| link["state"] == "live");

    let done = does(&demo, &["pause", "west"]);
    assert!(!done.contains("dry run"), "{done}");
    let all_paused = |link: &Json| {
        link["state"] == "paused" && link["states"]["paused"] == link["groups_wanted"]
    };
    demo.link_becomes("east", "is paused", all_paused);
    east.call(&["SET", "while", "paused"]);
    demo.link_becomes("east", "has a backlog", |link| link["backlog_entries"] == 1);
    // The other direction goes on, so the network is not what holds it.
    west.call(&["SET", "back", "1"]);
    east.becomes(&["GET", "back"], "1");
    assert_eq!(west.call(&["GET", "while"]), "nil");
    let status = demo.tool(&["status"]);
    assert_eq!(status.status.code(), Some(1), "a paused link is a problem: {}", said(&status));
    assert!(said(&status).contains("flotilla link resume west"), "{}", said(&status));

    does(&demo, &["resume", "west"]);
    west.becomes(&["GET", "while"], "paused");
    demo.link_becomes("east", "is live", |link| link["state"] == "live");
    does(&demo, &["rewind", "west"]);
    east.call(&["SET", "after", "rewind"]);
    west.becomes(&["GET", "after"], "rewind");
    demo.verify_equal();

    let refused = demo.tool(&["link", "remove", "west"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("flotilla link pause west"), "{}", said(&refused));

    // Who is fenced is told, and gets nothing.
    does(&demo, &["fence", "west"]);
    demo.link_becomes("east", "is fenced", |link| {
        link["state"] == "fenced" && link["standing"] == "fenced"
    });
    demo.link_becomes("west", "is refused", |link| {
        link["detail"].as_str().is_some_and(|detail| detail.contains("has fenced yours"))
    });
    east.call(&["SET", "alone", "1"]);
    assert_eq!(west.call(&["GET", "alone"]), "nil");
    demo.stop();
}
