//! CLUSTER: the partition map of the session's namespace, in the words of Redis Cluster.
//!
//! A group is a shard: its leader is the master, its other replicas are the slaves. A node leads
//! some groups and follows others, which SLOTS and SHARDS can say and NODES cannot: there a node
//! that leads anything is a master, and any other is the slave of the first leader it follows.

use super::super::session::Session;
use super::needs_cluster_door;
use crate::resp::Reply;
use bytes::Bytes;
use flotilla_topology::api::{ClusterMap, GroupInfo, NodeInfo};
use flotilla_topology::ids::NamespaceId;
use flotilla_topology::slot::{SLOT_COUNT, Slot};
use std::fmt::Write;
use std::sync::Arc;

pub(super) fn cluster(session: &mut Session, name: &str, args: &[Bytes]) -> Reply {
    if let Err(reply) = needs_cluster_door(session) {
        return reply;
    }
    let backend = session.shared.backend.clone();
    match name {
        "keyslot" => return Reply::Int(i64::from(Slot::of(&args[2]).0)),
        "myid" => return Reply::bulk(node_id(backend.node())),
        "links" => return Reply::Array(vec![]),
        _ => {}
    }
    let Some(map) = backend.map() else { return session.no_namespace(&session.namespace) };
    let Some(namespace) = backend.namespace(&session.namespace) else {
        return session.no_namespace(&session.namespace);
    };
    let (me, datacenter) = (backend.node().to_owned(), backend.datacenter().to_owned());
    let view = View::new(map, namespace, me, datacenter);
    match name {
        "slots" => view.slots(),
        "shards" => view.shards(),
        "nodes" => Reply::Verbatim(Bytes::from(view.nodes())),
        "info" => Reply::Verbatim(Bytes::from(view.info())),
        _ => unreachable!("cluster|{name} is in the table"),
    }
}

/// A node's id as Redis Cluster shows it: 40 hex digits that depend on its name only.
pub fn node_id(name: &str) -> String {
    // FNV-1a over the name, with a different start for each part: it only has to differ.
    let part = |start: u64| {
        name.bytes().fold(0xCBF2_9CE4_8422_2325 ^ start, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        })
    };
    let id = format!("{:016x}{:016x}{:016x}", part(0), part(0x9E37), part(0x79B9));
    id[..40].to_owned()
}

/// Where the cluster door of a group's leader is, as far as the map knows, seen from `datacenter`:
/// the address of a MOVED.
pub fn leader_address<'m>(
    map: &'m ClusterMap,
    group: &GroupInfo,
    datacenter: &str,
) -> Option<&'m str> {
    let leader = leader_name(group);
    let node = map.nodes.iter().find(|node| node.name == leader)?;
    Some(&node.addresses_from(datacenter).cluster_resp)
}

fn leader_name(group: &GroupInfo) -> &str {
    group.leader.as_ref().map_or(&group.preferred_leader, |hint| &hint.node)
}

/// Host and port of `host:port`, where the host may be `[v6]`.
fn split_address(address: &str) -> (&str, i64) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (host, port.parse().unwrap_or(0))
}

/// The map as one namespace and datacenter see it.
struct View {
    map: Arc<ClusterMap>,
    namespace: NamespaceId,
    me: String,
    datacenter: String,
}

impl View {
    fn new(map: Arc<ClusterMap>, namespace: NamespaceId, me: String, datacenter: String) -> View {
        View { map, namespace, me, datacenter }
    }

    /// Groups of the namespace, by slot.
    fn groups(&self) -> Vec<&GroupInfo> {
        let all = self.map.groups.iter();
        let mut groups: Vec<_> = all.filter(|group| group.namespace == self.namespace).collect();
        groups.sort_unstable_by_key(|group| group.slots);
        groups
    }

    fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.map.nodes.iter().find(|node| node.name == name)
    }

    fn address<'n>(&self, node: &'n NodeInfo) -> (&'n str, i64) {
        split_address(&node.addresses_from(&self.datacenter).cluster_resp)
    }

    /// The nodes of a group, its leader first.
    fn members(&self, group: &GroupInfo) -> Vec<&NodeInfo> {
        let leader = leader_name(group);
        let followers = group.replicas.iter().map(|replica| replica.node.as_str());
        let followers = followers.filter(|name| *name != leader);
        std::iter::once(leader).chain(followers).filter_map(|name| self.node(name)).collect()
    }

    fn slots(&self) -> Reply {
        let row = |group: &GroupInfo| {
            let mut row = vec![
                Reply::Int(i64::from(group.slots.first.0)),
                Reply::Int(i64::from(group.slots.last.0)),
            ];
            row.extend(self.members(group).into_iter().map(|node| {
                let (host, port) = self.address(node);
                Reply::Array(vec![
                    Reply::bulk(host.to_owned()),
                    Reply::Int(port),
                    Reply::bulk(node_id(&node.name)),
                    Reply::Map(vec![]),
                ])
            }));
            Reply::Array(row)
        };
        Reply::Array(self.groups().into_iter().map(row).collect())
    }

    fn shards(&self) -> Reply {
        let shard = |group: &GroupInfo| {
            let range = [group.slots.first, group.slots.last];
            let range = range.map(|slot| Reply::Int(i64::from(slot.0))).to_vec();
            let members = self.members(group).into_iter().enumerate();
            let nodes = members.map(|(index, node)| self.shard_node(node, index == 0)).collect();
            Reply::Map(vec![
                (Reply::bulk("slots"), Reply::Array(range)),
                (Reply::bulk("nodes"), Reply::Array(nodes)),
            ])
        };
        Reply::Array(self.groups().into_iter().map(shard).collect())
    }

    fn shard_node(&self, node: &NodeInfo, leads: bool) -> Reply {
        let (host, port) = self.address(node);
        let fields = [
            ("id", Reply::bulk(node_id(&node.name))),
            ("port", Reply::Int(port)),
            ("ip", Reply::bulk(host.to_owned())),
            ("endpoint", Reply::bulk(host.to_owned())),
            ("role", Reply::bulk(if leads { "master" } else { "replica" })),
            ("replication-offset", Reply::Int(0)),
            ("health", Reply::bulk(if node.alive { "online" } else { "fail" })),
        ];
        Reply::Map(fields.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
    }

    fn nodes(&self) -> String {
        let groups = self.groups();
        let mut out = String::new();
        for node in &self.map.nodes {
            let led = groups.iter().filter(|group| leader_name(group) == node.name);
            let slots: Vec<String> = led.map(|group| slot_text(group)).collect();
            let follows = groups.iter().find(|group| {
                slots.is_empty() && group.replicas.iter().any(|replica| replica.node == node.name)
            });
            let mut flags = Vec::new();
            flags.extend((node.name == self.me).then_some("myself"));
            flags.push(if follows.is_some() { "slave" } else { "master" });
            flags.extend((!node.alive && node.name != self.me).then_some("fail"));
            let master = follows.map_or("-".to_owned(), |group| node_id(leader_name(group)));
            let (host, port) = self.address(node);
            let bus = split_address(&node.addresses_from(&self.datacenter).rpc).1;
            // Writing to a string cannot fail.
            let _ = write!(
                out,
                "{} {host}:{port}@{bus} {} {master} 0 0 {} {}",
                node_id(&node.name),
                flags.join(","),
                self.map.epoch.0,
                if node.alive { "connected" } else { "disconnected" },
            );
            for range in slots {
                out.push(' ');
                out.push_str(&range);
            }
            out.push('\n');
        }
        out
    }

    fn info(&self) -> String {
        let groups = self.groups();
        let count = |group: &&GroupInfo| u32::from(group.slots.last.0 - group.slots.first.0) + 1;
        let assigned: u32 = groups.iter().map(count).sum();
        let led = groups.iter().filter(|group| {
            self.node(leader_name(group)).is_some_and(|node| node.alive || node.name == self.me)
        });
        let served: u32 = led.map(count).sum();
        let mut leaders: Vec<&str> = groups.iter().map(|group| leader_name(group)).collect();
        leaders.sort_unstable();
        leaders.dedup();
        let state = if served == u32::from(SLOT_COUNT) { "ok" } else { "fail" };
        let fields = [
            ("cluster_enabled", 1),
            ("cluster_slots_assigned", u64::from(assigned)),
            ("cluster_slots_ok", u64::from(served)),
            ("cluster_slots_pfail", 0),
            ("cluster_slots_fail", u64::from(assigned - served)),
            ("cluster_known_nodes", self.map.nodes.len() as u64),
            ("cluster_size", leaders.len() as u64),
            ("cluster_current_epoch", self.map.epoch.0),
            ("cluster_my_epoch", self.map.epoch.0),
            ("cluster_stats_messages_sent", 0),
            ("cluster_stats_messages_received", 0),
            ("total_cluster_links_buffer_limit_exceeded", 0),
        ];
        let mut out = format!("cluster_state:{state}\r\n");
        for (name, value) in fields {
            let _ = write!(out, "{name}:{value}\r\n");
        }
        out
    }
}

fn slot_text(group: &GroupInfo) -> String {
    let (first, last) = (group.slots.first.0, group.slots.last.0);
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_addresses() {
        assert_eq!(node_id("n1").len(), 40);
        assert!(node_id("n1").bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(node_id("n1"), node_id("n2"));
        assert_eq!(split_address("host:7000"), ("host", 7000));
        assert_eq!(split_address("[::1]:7000"), ("::1", 7000));
        assert_eq!(split_address("nonsense"), ("nonsense", 0));
    }
}
