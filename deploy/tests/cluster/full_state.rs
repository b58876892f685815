//! What two clusters do about state as a whole: merging it, and forgetting what was deleted.

use crate::harness::{Demo, alone, eventually, said};
use flotilla_chaos::http;
use std::time::Duration;

/// A counter of a syncer, over all its labels.
fn counted(demo: &Demo, cluster: &str, name: &str) -> u64 {
    let state = demo.cluster(cluster);
    let address = state["syncers"][0]["http"].as_str().expect("an address").to_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let asked = http::get(&address, "/metrics", Duration::from_secs(5));
    let answer = runtime.block_on(asked).expect("metrics");
    let text = String::from_utf8_lossy(&answer.body);
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

/// Waits until what was deleted or has ended is forgotten in both clusters.
fn nothing_to_collect(demo: &Demo) {
    eventually("nothing waits to be collected", || {
        let census = demo.tool(&["census"]);
        if census.status.success() { Ok(()) } else { Err(said(&census)) }
    });
}

/// The log could serve here; that rows travelled in a merge is seen by their number.
#[test]
fn a_full_state_merge_brings_what_is_lacking_and_no_more() {
    let _alone = alone();
    let demo = Demo::start(&["--rtt", "20ms"]);
    let (mut east, mut west) = (demo.redis("east", 0), demo.redis("west", 0));
    for number in 0..300 {
        east.call(&["SET", &format!("old:{number}"), "same"]);
    }
    west.becomes(&["GET", "old:299"], "same");
    demo.verify_equal();

    demo.does(&["link", "pause", "west"]);
    for number in 0..200 {
        east.call(&["HSET", &format!("new:{number}"), "f", "v", "g", "w"]);
        west.call(&["SET", &format!("there:{number}"), "kept"]);
    }
    for number in 0..50 {
        east.call(&["DEL", &format!("old:{number}")]);
    }
    demo.does(&["link", "merge", "west"]);
    demo.does(&["link", "resume", "west"]);
    west.becomes(&["HGET", "new:199", "g"], "w");
    west.becomes(&["GET", "old:49"], "nil");
    east.call(&["SET", "after", "the merge"]);
    west.becomes(&["GET", "after"], "the merge");
    east.becomes(&["GET", "there:199"], "kept");
    demo.verify_equal();
    let rows = counted(&demo, "west", "flotilla_merge_received_rows_total");
    assert!((250..=900).contains(&rows), "{rows} rows: 200 heads, 400 fields, 50 deletes lacked");

    // Once more: both hold the same, and nothing travels. What was deleted is forgotten at its own time in
    // each cluster, and travels as long as only one of them has done so.
    nothing_to_collect(&demo);
    demo.does(&["link", "merge", "west"]);
    eventually("the second merge ends", || {
        let links = demo.tool(&["link", "list", "--json"]);
        let text = String::from_utf8_lossy(&links.stdout).into_owned();
        if text.matches("\"state\": \"live\"").count() + text.matches("\"state\":\"live\"").count()
            == 2
        {
            Ok(())
        } else {
            Err(text)
        }
    });
    east.call(&["SET", "at", "last"]);
    west.becomes(&["GET", "at"], "last");
    demo.verify_equal();
    let again = counted(&demo, "west", "flotilla_merge_received_rows_total");
    assert_eq!(again, rows, "rows travelled though both were equal");
    demo.stop();
}

/// After deletes and expiries in both clusters nothing is left of them once all is quiet.
#[test]
fn what_was_deleted_or_has_ended_leaves_nothing_behind() {
    let _alone = alone();
    let demo = Demo::start(&["--rtt", "20ms"]);
    let (mut east, mut west) = (demo.redis("east", 0), demo.redis("west", 1));
    for number in 0..100 {
        east.call(&["SET", &format!("s:{number}"), "v"]);
        east.call(&["SET", &format!("t:{number}"), "v", "PX", "300"]);
        west.call(&["HSET", &format!("h:{number}"), "f", "1", "g", "2"]);
        west.call(&["PEXPIRE", &format!("h:{number}"), "100000"]);
        west.call(&["PERSIST", &format!("h:{number}")]);
    }
    east.becomes(&["HGET", "h:99", "f"], "1");
    west.becomes(&["GET", "s:99"], "v");
    for number in 0..100 {
        west.call(&["DEL", &format!("s:{number}")]);
        east.call(&["HDEL", &format!("h:{number}"), "f", "g"]);
    }
    east.call(&["SET", "stays", "v"]);
    east.call(&["HSET", "h:1", "f", "again"]);
    nothing_to_collect(&demo);
    let census = said(&demo.tool(&["census"]));
    for line in census.lines().skip(1).filter(|line| line.contains("-n")) {
        let numbers: Vec<&str> = line.split_whitespace().skip(1).collect();
        assert_eq!(numbers, ["2", "2", "0", "0", "0", "0", "0"], "{census}");
    }
    demo.verify_equal();
    demo.stop();
}
