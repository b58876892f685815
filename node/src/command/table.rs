//! The table of commands: the only list of them. Arity, flags and key positions are those of Redis
//! (a test compares them with a running one); what a command means between clusters is ours.

use super::spec::{Family, Flags, KeySpec, Place, Spec, Split};
use std::sync::LazyLock;

/// The longest name; a longer word is no command.
const NAME_BYTES_MAX: usize = 20;

const READ: Flags = Flags::READONLY;
const READ_MOVABLE: Flags = Flags::READONLY.and(Flags::MOVABLE_KEYS);
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
const GROW_FAST: Flags = GROW.and(Flags::FAST);
const GROW_MOVABLE: Flags = GROW.and(Flags::MOVABLE_KEYS);
const WRITE_MOVABLE: Flags = WRITE.and(Flags::MOVABLE_KEYS);
const WAIT: Flags = Flags::WRITE.and(Flags::NOSCRIPT).and(Flags::BLOCKING);
const WAIT_GROW: Flags = WAIT.and(Flags::DENYOOM);
const WAIT_FAST: Flags = WAIT.and(Flags::FAST);
const WAIT_MOVABLE: Flags = WRITE_MOVABLE.and(Flags::BLOCKING);
const ALWAYS: Flags = Flags::LOADING.and(Flags::STALE);
const ALWAYS_FAST: Flags = ALWAYS.and(Flags::FAST);
const SESSION: Flags = ALWAYS_FAST.and(Flags::NOSCRIPT).and(Flags::ALLOW_BUSY);
const STRANGER: Flags = SESSION.and(Flags::NO_AUTH);

const LOCAL: &str = "reads what this cluster has merged so far";
const LATER: &str = "the later write wins";
const LATER_FIELD: &str = "field by field, the later write wins";
const ADD_WINS: &str =
    "member by member: the later add or removal wins, and adding again counts as an add";
const REMOVES_MEMBER: &str = "member by member: removes what was added before; an add that it has not seen and that is later survives";
const POPS: &str =
    "two clusters may pop the same member; the later add or removal of each member wins";
const STORES: &str = "the result of this cluster's members replaces what the key held; the later write wins, member by member";
const STORES_IF_ASKED: &str = "with STORE or STOREDIST the result of this cluster's members replaces what the key held, and the later write wins, member by member; else it reads what this cluster has merged so far";
const STORES_LIST: &str = "with STORE the result of this cluster's elements replaces what the key held, and of two results at once the later one stays; else it reads what this cluster has merged so far";
const LATER_SCORE: &str = "member by member: the later score or removal wins, and giving a score again counts as later; conditions hold in this cluster only";
const WHOLE_SCORE: &str =
    "the later score wins as a whole, so one of two increments at once is lost";
const RANK: &str =
    "O(log(N)) of N members; O(N) while members that were deleted elsewhere are not swept yet";
const RANGE: &str = "O(log(N)+M) of N members, M of them in the range";
const SORT: &str = "O(N+M*log(M)) of N elements returned, M in the key";
const PUSHES: &str = "all elements stay; those that two clusters put at one place stand in the order of their stamps";
const PUSHES_IF: &str = "whether the list exists is asked in this cluster only; all elements stay";
const POPS_ELEMENT: &str = "two clusters may pop the same element: work a queue off in one cluster only; what was pushed elsewhere meanwhile stays";
const MOVES_ELEMENT: &str = "a removal and a push: two clusters that move the same element make two of it: work a queue off in one cluster only";
const REMOVES_ELEMENT: &str =
    "removes the elements that this cluster has; what was pushed elsewhere meanwhile stays";
const WHOLE: &str = "the later result wins as a whole";
const ADDS: &str = "both sides' increments add up";
const CONDITION: &str = "the condition holds in this cluster only; the later write wins";
const ONE_UNIT: &str = "arrives elsewhere as one unit, and there each write is merged as if it came \
    alone; conditions and WATCH hold in this cluster only";
const REMOVES: &str =
    "removes what was written before it; a write that it has not seen and that is later survives";
const MOVES: &str = "a delete of the old name and an overwrite of the new one; a write that it has not seen and that is later stays where it was made";
const EXPIRY: &str =
    "the later change of the expiry wins; a passed one removes what was written before it";
const REMOVES_IF: &str =
    "the condition holds in this cluster only; removes what was written before it";
const NOTHING: &str = "concerns this connection only";
const SERVER: &str = "tells of this cluster only";

macro_rules! commands {
    ($($id:ident $name:literal $arity:literal $flags:expr, $keys:ident, $family:ident,
       $place:ident, $split:ident, $complexity:expr, $between:expr, $summary:literal;)*) => {
        /// Names a command in code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Id {
            $(#[doc = concat!("`", $name, "`: ", $summary)] $id,)*
        }

        /// All commands.
        pub static TABLE: &[Spec] = &[$(Spec {
            id: Id::$id,
            name: $name,
            arity: $arity,
            flags: $flags,
            keys: KeySpec::$keys,
            family: Family::$family,
            place: Place::$place,
            split: Split::$split,
            complexity: $complexity,
            between_clusters: $between,
            summary: $summary,
        },)*];
    };
}

commands! {
    Get "get" 2 READ_FAST, ONE, String, Group, No, "O(1)", LOCAL, "The value of a key.";
    Set "set" -3 GROW, ONE, String, Group, No, "O(1)", LATER, "Sets a key to a value, with NX, XX, IFEQ, IFNE, GET, KEEPTTL and the expiry options; whatever the key held before is gone.";
    Mget "mget" -2 READ_FAST, ALL, String, Group, Values, "O(N) of N keys", LOCAL, "The values of several keys.";
    Mset "mset" -3 GROW, PAIRS, String, Group, Pairs, "O(N) of N keys", LATER, "Sets several keys.";
    GetSet "getset" 3 GROW_FAST, ONE, String, Group, No, "O(1)", LATER, "Sets a key and returns its old value.";
    GetDel "getdel" 2 WRITE_FAST, ONE, String, Group, No, "O(1)", REMOVES, "Returns the value of a key and deletes the key.";
    GetEx "getex" -2 WRITE_FAST, ONE, String, Group, No, "O(1)", EXPIRY, "Returns the value of a key and changes its expiry.";
    SetNx "setnx" 3 GROW_FAST, ONE, String, Group, No, "O(1)", CONDITION, "Sets a key that does not exist.";
    SetEx "setex" 4 GROW, ONE, String, Group, No, "O(1)", LATER, "Sets a key that expires after so many seconds.";
    PsetEx "psetex" 4 GROW, ONE, String, Group, No, "O(1)", LATER, "Sets a key that expires after so many milliseconds.";
    Append "append" 3 GROW_FAST, ONE, String, Group, No, "O(1)", WHOLE, "Appends to a value.";
    StrLen "strlen" 2 READ_FAST, ONE, String, Group, No, "O(1)", LOCAL, "The length of a value.";
    Incr "incr" 2 GROW_FAST, ONE, String, Group, No, "O(1)", ADDS, "Adds one to an integer.";
    Decr "decr" 2 GROW_FAST, ONE, String, Group, No, "O(1)", ADDS, "Takes one from an integer.";
    IncrBy "incrby" 3 GROW_FAST, ONE, String, Group, No, "O(1)", ADDS, "Adds to an integer.";
    DecrBy "decrby" 3 GROW_FAST, ONE, String, Group, No, "O(1)", ADDS, "Takes from an integer.";
    IncrByFloat "incrbyfloat" 3 GROW_FAST, ONE, String, Group, No, "O(1)", WHOLE, "Adds to a float; the sum is written as a value.";
    GetRange "getrange" 4 READ, ONE, String, Group, No, "O(N) of N bytes", LOCAL, "Part of a value.";
    Substr "substr" 4 READ, ONE, String, Group, No, "O(N) of N bytes", LOCAL, "Part of a value; the old name of GETRANGE.";
    SetRange "setrange" 4 GROW, ONE, String, Group, No, "O(N) of the value's N bytes", WHOLE, "Writes over part of a value, behind zeros if it is shorter.";
    Lcs "lcs" -3 READ, TWO, String, Group, No, "O(N*M) of values of N and M bytes, which may be 16785409 at most", LOCAL, "The longest common subsequence of two values, with LEN, IDX, MINMATCHLEN, WITHMATCHLEN; refused if (N+1)*(M+1) is above 16785409.";
    MsetNx "msetnx" -3 GROW, PAIRS, String, Group, No, "O(N) of N keys", "the condition holds in this cluster only; the later write wins, key by key", "Sets several keys of one slot, if none of them exists.";
    Cas "cas" -4 GROW_FAST, ONE, String, Group, No, "O(1)", CONDITION, "CAS key old new [EX s, PX ms, EXAT s or PXAT ms]: sets a key that holds the old value; 1 done, 0 it holds another, -1 no key.";
    Cad "cad" 3 WRITE_FAST, ONE, String, Group, No, "O(1)", REMOVES_IF, "CAD key value: deletes a key that holds the value; 1 done, 0 it holds another, -1 no key.";
    DelIfEq "delifeq" 3 WRITE_FAST, ONE, String, Group, No, "O(1)", REMOVES_IF, "DELIFEQ key value: deletes a key that holds the value; 1 done, else 0.";
    DelEx "delex" -2 WRITE_FAST, ONE, String, Group, No, "O(1)", REMOVES_IF, "DELEX key [IFEQ or IFNE value]: deletes a key if its value is, or is not, this one; 1 done, else 0.";

    Del "del" -2 WRITE, ALL, Keyspace, Group, Count, "O(N) of N keys", REMOVES, "Deletes keys.";
    Unlink "unlink" -2 WRITE_FAST, ALL, Keyspace, Group, Count, "O(N) of N keys", REMOVES, "Deletes keys; the same as DEL, which is as quick here.";
    Exists "exists" -2 READ_FAST, ALL, Keyspace, Group, Count, "O(N) of N keys", LOCAL, "How many of the keys exist.";
    Touch "touch" -2 READ_FAST, ALL, Keyspace, Group, Count, "O(N) of N keys", LOCAL, "How many of the keys exist; no access times are kept.";
    Type "type" 2 READ_FAST, ONE, Keyspace, Group, No, "O(1)", LOCAL, "The type of a key.";
    Expire "expire" -3 WRITE_FAST, ONE, Keyspace, Group, No, "O(1)", EXPIRY, "Lets a key expire after so many seconds, with NX, XX, GT, LT.";
    Pexpire "pexpire" -3 WRITE_FAST, ONE, Keyspace, Group, No, "O(1)", EXPIRY, "Lets a key expire after so many milliseconds, with NX, XX, GT, LT.";
    ExpireAt "expireat" -3 WRITE_FAST, ONE, Keyspace, Group, No, "O(1)", EXPIRY, "Lets a key expire at a Unix time in seconds, with NX, XX, GT, LT.";
    PexpireAt "pexpireat" -3 WRITE_FAST, ONE, Keyspace, Group, No, "O(1)", EXPIRY, "Lets a key expire at a Unix time in milliseconds, with NX, XX, GT, LT.";
    ExpireTime "expiretime" 2 READ_FAST, ONE, Keyspace, Group, No, "O(1)", LOCAL, "When a key expires, as a Unix time in seconds.";
    PexpireTime "pexpiretime" 2 READ_FAST, ONE, Keyspace, Group, No, "O(1)", LOCAL, "When a key expires, as a Unix time in milliseconds.";
    Ttl "ttl" 2 READ_FAST, ONE, Keyspace, Group, No, "O(1)", LOCAL, "Seconds until a key expires.";
    Pttl "pttl" 2 READ_FAST, ONE, Keyspace, Group, No, "O(1)", LOCAL, "Milliseconds until a key expires.";
    Persist "persist" 2 WRITE_FAST, ONE, Keyspace, Group, No, "O(1)", EXPIRY, "Takes the expiry from a key.";
    Scan "scan" -2 READ, NONE, Keyspace, EveryGroup, No, "O(1) per call, O(N) in all", LOCAL, "Goes through all keys of the namespace, with MATCH, COUNT and TYPE.";
    DbSize "dbsize" 1 READ_FAST, NONE, Keyspace, EveryGroup, No, "O(groups)", LOCAL, "How many keys the namespace has.";
    Keys "keys" 2 READ, NONE, Keyspace, EveryGroup, No, "O(N) of N keys", LOCAL, "All keys that match a pattern, up to 48 MiB of them; each group answers for its own moment.";
    RandomKey "randomkey" 1 READ, NONE, Keyspace, EveryGroup, No, "O(1); O(N) where N keys have ended", LOCAL, "One of the keys, by chance; groups take turns.";
    Sort "sort" -2 GROW_MOVABLE, SORTED, Keyspace, Group, No, SORT, STORES_LIST, "The elements of a list, set or sorted set in order, with BY, LIMIT, GET, ASC, DESC, ALPHA and STORE; at most 32 MiB. A pattern of BY or GET needs the key's hash tag before its `*`.";
    SortRo "sort_ro" -2 READ_MOVABLE, ONE, Keyspace, Group, No, SORT, LOCAL, "SORT without STORE.";
    Copy "copy" -3 GROW, TWO, Keyspace, Group, No, "O(N) of N elements", "the target is overwritten: the later write wins; counters arrive as numbers", "Copies a key within its slot, with REPLACE; at most 20 MiB. There is no option DB.";
    Rename "rename" 3 WRITE, TWO, Keyspace, Group, No, "O(N) of N elements", MOVES, "Gives a key another name within its slot; at most 20 MiB, since its rows are written anew.";
    RenameNx "renamenx" 3 WRITE_FAST, TWO, Keyspace, Group, No, "O(N) of N elements", MOVES, "RENAME, if the new name is not taken in this cluster.";
    Dump "dump" 2 READ, ONE, Keyspace, Group, No, "O(N) of N elements", LOCAL, "The value of a key as bytes that RESTORE takes, here or in Redis 4 and newer; 16 MiB at most.";
    Restore "restore" -4 GROW, ONE, Keyspace, Group, No, "O(N*log(N)) of N elements", "the key is overwritten: the later write wins; counters arrive as numbers", "Makes a key of what DUMP gave, here or in Redis up to 7.2, with REPLACE and ABSTTL; at most 20 MiB, no streams and no modules. IDLETIME and FREQ are checked and change nothing, since nothing is evicted.";
    Object "object" -2 READ, SECOND, Keyspace, Group, No, "O(1); ENCODING of a collection O(N) of N elements, 512 at most", LOCAL, "What there is to tell of a value besides what it is.";

    Hset "hset" -4 GROW_FAST, ONE, Hash, Group, No, "O(N) of N fields", LATER_FIELD, "Sets fields of a hash.";
    HsetNx "hsetnx" 4 GROW_FAST, ONE, Hash, Group, No, "O(1)", CONDITION, "Sets a field that does not exist.";
    HmSet "hmset" -4 GROW_FAST, ONE, Hash, Group, No, "O(N) of N fields", LATER_FIELD, "Sets fields of a hash; the old name of HSET.";
    Hget "hget" 3 READ_FAST, ONE, Hash, Group, No, "O(1)", LOCAL, "The value of a field.";
    HmGet "hmget" -3 READ_FAST, ONE, Hash, Group, No, "O(N) of N fields", LOCAL, "The values of several fields.";
    HgetAll "hgetall" 2 READ, ONE, Hash, Group, No, "O(N) of N fields", LOCAL, "All fields and values.";
    Hdel "hdel" -3 WRITE_FAST, ONE, Hash, Group, No, "O(N) of N fields", REMOVES, "Deletes fields.";
    Hlen "hlen" 2 READ_FAST, ONE, Hash, Group, No, "O(1)", LOCAL, "How many fields a hash has.";
    Hexists "hexists" 3 READ_FAST, ONE, Hash, Group, No, "O(1)", LOCAL, "Whether a field exists.";
    HincrBy "hincrby" 4 GROW_FAST, ONE, Hash, Group, No, "O(1)", ADDS, "Adds to an integer in a field.";
    Hkeys "hkeys" 2 READ, ONE, Hash, Group, No, "O(N) of N fields", LOCAL, "All fields.";
    Hvals "hvals" 2 READ, ONE, Hash, Group, No, "O(N) of N fields", LOCAL, "All values.";
    HstrLen "hstrlen" 3 READ_FAST, ONE, Hash, Group, No, "O(1)", LOCAL, "The length of a field's value.";
    HrandField "hrandfield" -2 READ, ONE, Hash, Group, No, "O(N) of N fields", LOCAL, "Fields by chance, with a count and WITHVALUES.";
    Hscan "hscan" -3 READ, ONE, Hash, Group, No, "O(N) of N fields per call, in at most about 64 calls", LOCAL, "Goes through all fields and values, with MATCH and COUNT; up to 1024 fields come at once.";
    HincrByFloat "hincrbyfloat" 4 GROW_FAST, ONE, Hash, Group, No, "O(1)", WHOLE, "Adds to a float in a field; the sum is written as a value.";

    SetBit "setbit" 4 GROW, ONE, Bitmap, Group, No, "O(N) of the value's N bytes", WHOLE, "Sets or clears a bit; returns what it was.";
    GetBit "getbit" 3 READ_FAST, ONE, Bitmap, Group, No, "O(1)", LOCAL, "A bit.";
    BitCount "bitcount" -2 READ, ONE, Bitmap, Group, No, "O(N) of N bytes", LOCAL, "How many bits are set, in all or in a range of BYTEs or BITs.";
    BitPos "bitpos" -3 READ, ONE, Bitmap, Group, No, "O(N) of N bytes", LOCAL, "The first bit that is set or not, in all or in a range of BYTEs or BITs.";
    BitOp "bitop" -4 GROW, FROM_SECOND, Bitmap, Group, No, "O(N) of N bytes, 256 MiB at most", WHOLE, "Writes AND, OR, XOR or NOT of values to another key of their slot.";
    BitField "bitfield" -2 GROW, ONE, Bitmap, Group, No, "O(N) of the value's N bytes", WHOLE, "GET, SET and INCRBY of integers of 1 to 64 bits anywhere in a value, with OVERFLOW.";
    BitFieldRo "bitfield_ro" -2 READ_FAST, ONE, Bitmap, Group, No, "O(1)", LOCAL, "GET of integers of 1 to 64 bits anywhere in a value.";

    PfAdd "pfadd" -2 GROW_FAST, ONE, HyperLogLog, Group, No, "O(1)", WHOLE, "Adds elements to a HyperLogLog; one that changes nothing writes nothing.";
    PfCount "pfcount" -2 READ, ALL, HyperLogLog, Group, No, "O(N) of N keys, 256 MiB at most", LOCAL, "How many different elements were added, about, to keys of one slot.";
    PfMerge "pfmerge" -2 GROW, ALL, HyperLogLog, Group, No, "O(N) of N keys, 256 MiB at most", WHOLE, "Adds HyperLogLogs to another one of their slot.";

    GeoAdd "geoadd" -5 GROW, ONE, Geo, Group, No, "O(N*log(M)) of N members given, M in the set", LATER_SCORE, "Adds members with longitudes and latitudes to a sorted set, with NX, XX and CH.";
    GeoPos "geopos" -2 READ, ONE, Geo, Group, No, "O(N) of N members given", LOCAL, "Where members are.";
    GeoHash "geohash" -2 READ, ONE, Geo, Group, No, "O(N) of N members given", LOCAL, "Geohashes of members, as other systems know them.";
    GeoDist "geodist" -4 READ, ONE, Geo, Group, No, "O(1)", LOCAL, "How far two members are from each other.";
    GeoSearch "geosearch" -7 READ, ONE, Geo, Group, No, "O(N+log(M)) of N members in cells that cover what is asked for, M in the set", LOCAL, "Members within a circle or a box, with COUNT, ANY, ASC, DESC, WITHCOORD, WITHDIST and WITHHASH.";
    GeoSearchStore "geosearchstore" -8 GROW, TWO, Geo, Group, No, "O(N+log(M)) of N members in cells that cover what is asked for, M in the set", STORES, "Stores what GEOSEARCH returns, with places or, if STOREDIST, distances as scores.";
    GeoRadius "georadius" -6 GROW_MOVABLE, AROUND, Geo, Group, No, "O(N+log(M)) of N members in cells that cover the circle, M in the set", STORES_IF_ASKED, "Members within a circle around a place, or with STORE or STOREDIST a sorted set of them; an old form of GEOSEARCH and GEOSEARCHSTORE.";
    GeoRadiusByMember "georadiusbymember" -5 GROW_MOVABLE, AROUND_MEMBER, Geo, Group, No, "O(N+log(M)) of N members in cells that cover the circle, M in the set", STORES_IF_ASKED, "Members within a circle around another one, or with STORE or STOREDIST a sorted set of them; an old form of GEOSEARCH and GEOSEARCHSTORE.";
    GeoRadiusRo "georadius_ro" -6 READ, ONE, Geo, Group, No, "O(N+log(M)) of N members in cells that cover the circle, M in the set", LOCAL, "Members within a circle around a place; an old form of GEOSEARCH.";
    GeoRadiusByMemberRo "georadiusbymember_ro" -5 READ, ONE, Geo, Group, No, "O(N+log(M)) of N members in cells that cover the circle, M in the set", LOCAL, "Members within a circle around another one; an old form of GEOSEARCH.";

    Lpush "lpush" -3 GROW_FAST, ONE, List, Group, No, "O(N) of N elements given", PUSHES, "Puts elements before the first of a list.";
    Rpush "rpush" -3 GROW_FAST, ONE, List, Group, No, "O(N) of N elements given", PUSHES, "Puts elements behind the last of a list.";
    LpushX "lpushx" -3 GROW_FAST, ONE, List, Group, No, "O(N) of N elements given", PUSHES_IF, "LPUSH, if the list exists.";
    RpushX "rpushx" -3 GROW_FAST, ONE, List, Group, No, "O(N) of N elements given", PUSHES_IF, "RPUSH, if the list exists.";
    Lpop "lpop" -2 WRITE_FAST, ONE, List, Group, No, "O(N) of N popped", POPS_ELEMENT, "Removes elements from the left end and returns them.";
    Rpop "rpop" -2 WRITE_FAST, ONE, List, Group, No, "O(N) of N popped", POPS_ELEMENT, "Removes elements from the right end and returns them.";
    Lmpop "lmpop" -4 WRITE_MOVABLE, COUNTED, List, Group, No, "O(K+N) of K keys and N popped", POPS_ELEMENT, "Removes elements from an end of the first of the keys that is not empty.";
    Lmove "lmove" 5 GROW, TWO, List, Group, No, "O(1)", MOVES_ELEMENT, "Moves an element from an end of a list to an end of the same or another one.";
    RpopLpush "rpoplpush" 3 GROW, TWO, List, Group, No, "O(1)", MOVES_ELEMENT, "LMOVE from the right end to the left one; its old name.";
    BlPop "blpop" -3 WAIT, BUT_LAST, List, Group, No, "O(K) of K keys", POPS_ELEMENT, "Removes an element from the left end of the first of the keys that is not empty; waits for one, for so many seconds, 0 without end.";
    BrPop "brpop" -3 WAIT, BUT_LAST, List, Group, No, "O(K) of K keys", POPS_ELEMENT, "Removes an element from the right end of the first of the keys that is not empty; waits for one, for so many seconds, 0 without end.";
    BlmPop "blmpop" -5 WAIT_MOVABLE, COUNTED_SECOND, List, Group, No, "O(K+N) of K keys and N popped", POPS_ELEMENT, "LMPOP; waits for an element, for so many seconds, 0 without end.";
    BlMove "blmove" 6 WAIT_GROW, TWO, List, Group, No, "O(1)", MOVES_ELEMENT, "LMOVE; waits for an element, for so many seconds, 0 without end.";
    BrpopLpush "brpoplpush" 4 WAIT_GROW, TWO, List, Group, No, "O(1)", MOVES_ELEMENT, "BLMOVE from the right end to the left one; its old name.";
    Llen "llen" 2 READ_FAST, ONE, List, Group, No, "O(1)", LOCAL, "How many elements a list has.";
    Lindex "lindex" 3 READ, ONE, List, Group, No, RANK, LOCAL, "The element of an index.";
    Lrange "lrange" 4 READ, ONE, List, Group, No, RANGE, LOCAL, "Elements between two indexes.";
    Lpos "lpos" -3 READ, ONE, List, Group, No, "O(N) of N elements", LOCAL, "The indexes of a value, with RANK, COUNT and MAXLEN.";
    Lset "lset" 4 GROW, ONE, List, Group, No, RANK, "element by element: the later value wins, and a removal wins against any value", "Sets the element of an index.";
    Linsert "linsert" 5 GROW, ONE, List, Group, No, "O(N) of N elements up to the pivot", PUSHES, "Puts an element before or after the first that has a value.";
    Lrem "lrem" 4 WRITE, ONE, List, Group, No, "O(N) of N elements", REMOVES_ELEMENT, "Removes elements that have a value.";
    Ltrim "ltrim" 4 WRITE, ONE, List, Group, No, "O(log(N)+M) of N elements, M of them removed", REMOVES_ELEMENT, "Removes all elements but those between two indexes; 20 MiB of positions at most.";

    Sadd "sadd" -3 GROW_FAST, ONE, Set, Group, No, "O(N) of N members", ADD_WINS, "Adds members to a set.";
    Srem "srem" -3 WRITE_FAST, ONE, Set, Group, No, "O(N) of N members", REMOVES_MEMBER, "Removes members from a set.";
    Smembers "smembers" 2 READ, ONE, Set, Group, No, "O(N) of N members", LOCAL, "All members.";
    SisMember "sismember" 3 READ_FAST, ONE, Set, Group, No, "O(1)", LOCAL, "Whether a member is in a set.";
    SmisMember "smismember" -3 READ_FAST, ONE, Set, Group, No, "O(N) of N members", LOCAL, "Which members are in a set.";
    Scard "scard" 2 READ_FAST, ONE, Set, Group, No, "O(1)", LOCAL, "How many members a set has.";
    Smove "smove" 4 WRITE_FAST, TWO, Set, Group, No, "O(1)", "a removal and an add: the later write wins in each set, so a member may end in both or in none if two clusters move it", "Moves a member from one set to another.";
    Spop "spop" -2 WRITE_FAST, ONE, Set, Group, No, "O(N) of N popped", POPS, "Removes members chosen by chance and returns them.";
    SrandMember "srandmember" -2 READ, ONE, Set, Group, No, "O(N) of N returned", LOCAL, "Members chosen by chance.";
    Sscan "sscan" -3 READ, ONE, Set, Group, No, "O(N) of N members per call, in at most about 64 calls", LOCAL, "Goes through all members, with MATCH and COUNT; up to 1024 members come at once.";
    Sinter "sinter" -2 READ, ALL, Set, Group, No, "O(N) of N members in all sets", LOCAL, "Members that are in all sets.";
    SinterCard "sintercard" -3 READ_MOVABLE, COUNTED, Set, Group, No, "O(N) of N members in all sets", LOCAL, "How many members are in all sets, up to a LIMIT.";
    SinterStore "sinterstore" -3 GROW, ALL, Set, Group, No, "O(N) of N members in all sets", STORES, "Stores what SINTER returns.";
    Sunion "sunion" -2 READ, ALL, Set, Group, No, "O(N) of N members in all sets", LOCAL, "Members that are in any of the sets.";
    SunionStore "sunionstore" -3 GROW, ALL, Set, Group, No, "O(N) of N members in all sets", STORES, "Stores what SUNION returns.";
    Sdiff "sdiff" -2 READ, ALL, Set, Group, No, "O(N) of N members in all sets", LOCAL, "Members of the first set that are in none of the others.";
    SdiffStore "sdiffstore" -3 GROW, ALL, Set, Group, No, "O(N) of N members in all sets", STORES, "Stores what SDIFF returns.";

    Zadd "zadd" -4 GROW_FAST, ONE, SortedSet, Group, No, "O(N*log(M)) of N members given, M in the set", LATER_SCORE, "Adds members with scores to a sorted set, with NX, XX, GT, LT, CH and INCR.";
    ZincrBy "zincrby" 4 GROW_FAST, ONE, SortedSet, Group, No, "O(log(N))", WHOLE_SCORE, "Adds to a member's score; the sum is written as its score.";
    Zrem "zrem" -3 WRITE_FAST, ONE, SortedSet, Group, No, "O(N*log(M)) of N members given, M in the set", REMOVES_MEMBER, "Removes members from a sorted set.";
    Zcard "zcard" 2 READ_FAST, ONE, SortedSet, Group, No, "O(1)", LOCAL, "How many members a sorted set has.";
    Zscore "zscore" 3 READ_FAST, ONE, SortedSet, Group, No, "O(1)", LOCAL, "The score of a member.";
    Zmscore "zmscore" -3 READ_FAST, ONE, SortedSet, Group, No, "O(N) of N members given", LOCAL, "The scores of members.";
    Zrank "zrank" 3 READ_FAST, ONE, SortedSet, Group, No, RANK, LOCAL, "How many members have lower scores.";
    ZrevRank "zrevrank" 3 READ_FAST, ONE, SortedSet, Group, No, RANK, LOCAL, "How many members have higher scores.";
    Zcount "zcount" 4 READ_FAST, ONE, SortedSet, Group, No, RANK, LOCAL, "How many members have scores in a range.";
    ZlexCount "zlexcount" 4 READ_FAST, ONE, SortedSet, Group, No, RANK, LOCAL, "How many members have names in a range.";
    Zrange "zrange" -4 READ, ONE, SortedSet, Group, No, RANGE, LOCAL, "Members by rank, or with BYSCORE by score, with BYLEX by name; also REV, LIMIT and WITHSCORES.";
    ZrevRange "zrevrange" -4 READ, ONE, SortedSet, Group, No, RANGE, LOCAL, "Members by rank from the highest score.";
    ZrangeByScore "zrangebyscore" -4 READ, ONE, SortedSet, Group, No, RANGE, LOCAL, "Members by score.";
    ZrevRangeByScore "zrevrangebyscore" -4 READ, ONE, SortedSet, Group, No, RANGE, LOCAL, "Members by score from the highest.";
    ZrangeByLex "zrangebylex" -4 READ, ONE, SortedSet, Group, No, RANGE, LOCAL, "Members of one score by name.";
    ZrevRangeByLex "zrevrangebylex" -4 READ, ONE, SortedSet, Group, No, RANGE, LOCAL, "Members of one score by name from the last.";
    ZrangeStore "zrangestore" -5 GROW, TWO, SortedSet, Group, No, RANGE, STORES, "Stores what ZRANGE returns.";
    ZremRangeByRank "zremrangebyrank" 4 WRITE, ONE, SortedSet, Group, No, RANGE, REMOVES_MEMBER, "Removes members by rank.";
    ZremRangeByScore "zremrangebyscore" 4 WRITE, ONE, SortedSet, Group, No, RANGE, REMOVES_MEMBER, "Removes members by score.";
    ZremRangeByLex "zremrangebylex" 4 WRITE, ONE, SortedSet, Group, No, RANGE, REMOVES_MEMBER, "Removes members of one score by name.";
    ZpopMin "zpopmin" -2 WRITE_FAST, ONE, SortedSet, Group, No, "O(N*log(M)) of N popped, M in the set", POPS, "Removes the members with the lowest scores and returns them.";
    ZpopMax "zpopmax" -2 WRITE_FAST, ONE, SortedSet, Group, No, "O(N*log(M)) of N popped, M in the set", POPS, "Removes the members with the highest scores and returns them.";
    Zmpop "zmpop" -4 WRITE_MOVABLE, COUNTED, SortedSet, Group, No, "O(K) of K keys and O(N*log(M)) of N popped, M in the set", POPS, "Removes members with the lowest or highest scores from the first of the keys that is not empty.";
    BzPopMin "bzpopmin" -3 WAIT_FAST, BUT_LAST, SortedSet, Group, No, "O(K+log(N)) of K keys and N members", POPS, "Removes the member with the lowest score of the first of the keys that is not empty; waits for one, for so many seconds, 0 without end.";
    BzPopMax "bzpopmax" -3 WAIT_FAST, BUT_LAST, SortedSet, Group, No, "O(K+log(N)) of K keys and N members", POPS, "Removes the member with the highest score of the first of the keys that is not empty; waits for one, for so many seconds, 0 without end.";
    BzmPop "bzmpop" -5 WAIT_MOVABLE, COUNTED_SECOND, SortedSet, Group, No, "O(K) of K keys and O(N*log(M)) of N popped, M in the set", POPS, "ZMPOP; waits for a member, for so many seconds, 0 without end.";
    ZrandMember "zrandmember" -2 READ, ONE, SortedSet, Group, No, "O(N) of N returned", LOCAL, "Members chosen by chance, with their scores if WITHSCORES.";
    Zscan "zscan" -3 READ, ONE, SortedSet, Group, No, "O(N) of N members per call, in at most about 64 calls", LOCAL, "Goes through all members and scores, with MATCH and COUNT; up to 1024 members come at once.";
    Zunion "zunion" -3 READ_MOVABLE, COUNTED, SortedSet, Group, No, "O(N*log(N)) of N members in all keys", LOCAL, "Members that are in any of the keys, sorted sets or sets, with WEIGHTS, AGGREGATE and WITHSCORES.";
    ZunionStore "zunionstore" -4 GROW_MOVABLE, ONE_AND_COUNTED, SortedSet, Group, No, "O(N*log(N)) of N members in all keys", STORES, "Stores what ZUNION returns.";
    Zinter "zinter" -3 READ_MOVABLE, COUNTED, SortedSet, Group, No, "O(N*log(N)) of N members in all keys", LOCAL, "Members that are in all of the keys, with WEIGHTS, AGGREGATE and WITHSCORES.";
    ZinterStore "zinterstore" -4 GROW_MOVABLE, ONE_AND_COUNTED, SortedSet, Group, No, "O(N*log(N)) of N members in all keys", STORES, "Stores what ZINTER returns.";
    ZinterCard "zintercard" -3 READ_MOVABLE, COUNTED, SortedSet, Group, No, "O(N) of N members in all keys", LOCAL, "How many members are in all of the keys, up to a LIMIT.";
    Zdiff "zdiff" -3 READ_MOVABLE, COUNTED, SortedSet, Group, No, "O(N*log(N)) of N members in all keys", LOCAL, "Members of the first key that are in no other one, with WITHSCORES.";
    ZdiffStore "zdiffstore" -4 GROW_MOVABLE, ONE_AND_COUNTED, SortedSet, Group, No, "O(N*log(N)) of N members in all keys", STORES, "Stores what ZDIFF returns.";

    Multi "multi" 1 SESSION, NONE, Transaction, Transaction, No, "O(1)", ONE_UNIT, "Begins a transaction: commands are queued until EXEC.";
    Exec "exec" 1 ALWAYS.and(Flags::NOSCRIPT).and(Flags::SKIP_SLOWLOG), NONE, Transaction, Transaction, No, "that of the queued commands", ONE_UNIT, "Carries out what is queued, all or nothing, if no watched key was changed. All keys must be in one group, or in one slot if the namespace is synced.";
    Discard "discard" 1 SESSION, NONE, Transaction, Transaction, No, "O(N) of N queued commands", NOTHING, "Forgets what is queued and watched.";
    Watch "watch" -2 SESSION, ALL, Transaction, Transaction, No, "O(1) for each key", "notices what this cluster merges, not what is still on its way", "Lets EXEC answer nil if one of the keys is changed until then.";
    Unwatch "unwatch" 1 SESSION, NONE, Transaction, Transaction, No, "O(1)", NOTHING, "Forgets what is watched.";
    Txn "txn" -5 WRITE, SECOND, Transaction, Transaction, No, "that of the commands", ONE_UNIT, "TXN IF key EXISTS, NOTEXISTS, or EQ, NE, GT, GE, LT or LE value [IF ...] THEN [n command ...] [ELSE [n command ...]]: carries out one list of commands or the other, all or nothing. n is the number of words of the command behind it.";

    Ping "ping" -1 Flags::FAST, NONE, Connection, Connection, No, "O(1)", NOTHING, "Answers PONG, or its argument.";
    Echo "echo" 2 ALWAYS_FAST, NONE, Connection, Connection, No, "O(1)", NOTHING, "Answers its argument.";
    Hello "hello" -1 STRANGER, NONE, Connection, Connection, No, "O(1)", NOTHING, "Chooses RESP2 or RESP3, with AUTH and SETNAME; tells of the server.";
    Auth "auth" -2 STRANGER, NONE, Connection, Connection, No, "O(1)", NOTHING, "Authenticates with the node's password.";
    Select "select" 2 ALWAYS_FAST, NONE, Connection, Connection, No, "O(1)", NOTHING, "Chooses a namespace by name; 0 is `default`.";
    Client "client" -2 Flags::NONE, NONE, Connection, Connection, No, "O(1); LIST O(N) of N connections", NOTHING, "The connections of this node.";
    Readonly "readonly" 1 ALWAYS_FAST, NONE, Connection, Connection, No, "O(1)", NOTHING, "Allows reads of replicas that do not lead (cluster port).";
    Readwrite "readwrite" 1 ALWAYS_FAST, NONE, Connection, Connection, No, "O(1)", NOTHING, "Takes READONLY back (cluster port).";
    Quit "quit" -1 STRANGER, NONE, Connection, Connection, No, "O(1)", NOTHING, "Closes the connection.";
    Reset "reset" 1 STRANGER, NONE, Connection, Connection, No, "O(1)", NOTHING, "Makes the connection as it was when it began.";

    Command "command" -1 ALWAYS, NONE, Server, Connection, No, "O(N) of N commands", SERVER, "The commands that there are: the same as COMMAND INFO.";
    Time "time" 1 ALWAYS_FAST, NONE, Server, Connection, No, "O(1)", SERVER, "This node's clock, in seconds and microseconds; it is read to a millisecond.";
    Info "info" -1 ALWAYS, NONE, Server, Connection, No, "O(1)", SERVER, "Facts and counters of this node, by section.";
    Config "config" -2 Flags::NONE, NONE, Server, Connection, No, "O(N) of N settings", SERVER, "Settings of this node.";
    Flotilla "flotilla" -2 READ, NONE, Server, EveryGroup, No, "O(N) of N conflicts remembered by each group", "tells what lost when this cluster merged; another cluster may know of others", "What is not of Redis.";
    Cluster "cluster" -2 Flags::NONE, NONE, Server, Connection, No, "O(N) of N nodes", SERVER, "Where the slots of the namespace lie (cluster port).";
}

static BY_NAME: LazyLock<Vec<&'static Spec>> = LazyLock::new(|| {
    let mut specs: Vec<&Spec> = TABLE.iter().collect();
    specs.sort_unstable_by_key(|spec| spec.name);
    specs
});

/// The command of that name, in upper or lower case.
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let mut lower = [0u8; NAME_BYTES_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let lower: &[u8] = lower;
    let specs = &*BY_NAME;
    let found = specs.binary_search_by(|spec| spec.name.as_bytes().cmp(lower)).ok()?;
    Some(specs[found])
}
