// Asks PD once a second how it stands and shows the answer. No framework, no build, no request to
// anywhere else. Everything from PD is put in as text, never as markup.

const EVERY_MS = 1000;
const DEADLINE_MS = 4000;
const STALE_AFTER_MS = 5000;
const HISTORY = 120; // samples of a link's lag that are drawn: two minutes
const ROWS_MAX = 256; // groups of a cluster that are drawn, those with trouble first

const STATES = {
  live: 'live', 'catching-up': 'catching up', merging: 'merging', paused: 'paused',
  fenced: 'fenced', disconnected: 'disconnected', stalled: 'stalled', parked: 'parked', refused: 'refused', 'needs-merge': 'needs merge', unknown: 'not known',
};

const MOVING = ['live', 'catching-up', 'merging']; // news travel without anybody doing anything

const byId = (id) => document.getElementById(id);
const history = new Map(); // "east→west" -> lags in seconds, newest last
const folded = new Map(); // name of a cluster -> whether its table is open
const drawn = new Map(); // id of an element -> JSON of what it shows
let answeredAt = 0;
let complaint = '';

// ---- small helpers ----

function make(tag, attributes = {}, ...children) {
  const svg = ['svg', 'path', 'polyline', 'title'].includes(tag);
  const element = svg
    ? document.createElementNS('http://www.w3.org/2000/svg', tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) {
      element.setAttribute(name, value === true ? '' : value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Draws only what changed, so that selections, focus and scroll positions stay.
function draw(id, data, build) {
  const json = JSON.stringify(data);
  if (drawn.get(id) === json) return;
  drawn.set(id, json);
  byId(id).replaceChildren(...build());
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// What stands between backquotes is a name.
function marked(line) {
  return line.split('`').map((part, n) => (n % 2 ? make('code', {}, part) : part));
}

function seconds(value) {
  if (value === null || value === undefined) return '–';
  if (value === 0) return '0';
  if (value < 0.00095) return '<1 ms';
  if (value < 0.995) return `${Math.round(value * 1000)} ms`;
  if (value < 59.5) return `${value.toFixed(1)} s`;
  if (value < 3570) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${(value / 3600).toFixed(1)} h`;
  return `${Math.round(value / 86400)} days`;
}

function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1023.5 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${value >= 10 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

const count = (n, one, many = `${one}s`) => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

// ---- what an answer means ----

function remember(links) {
  for (const link of links) {
    const name = `${link.from}→${link.to}`;
    const lags = history.get(name) ?? [];
    lags.push(link.state ? link.lag_seconds : null);
    if (lags.length > HISTORY) lags.shift();
    history.set(name, lags);
  }
}

// ---- clusters ----

function member(process, does) {
  return make('li', {},
    make('span', { class: process.alive ? 'dot' : 'dot silent' },
      process.name, process.alive ? '' : ' silent'),
    make('span', { class: 'does' }, does));
}

function datacenter(name, status, leads) {
  const { map } = status;
  const nodes = map.nodes.filter((node) => node.datacenter === name);
  const syncers = map.syncers.filter((syncer) => syncer.datacenter === name);
  return make('div', { class: 'dc' },
    make('h4', {}, make('small', {}, 'datacenter '), name),
    make('ul', { class: 'members' },
      ...nodes.map((node) => member(node, `leads ${leads.get(node.name) ?? 0} of ${
        map.groups.filter((group) => group.replicas.some((r) => r.node === node.name)).length}`)),
      ...syncers.map((syncer) => member(syncer, 'syncer'))));
}

function clusterCard(cluster) {
  const { status } = cluster;
  const card = make('article', { class: cluster.here ? 'cluster here' : 'cluster' },
    make('h3', {}, make('small', {}, 'cluster '), cluster.name));
  if (!status) {
    card.append(make('p', {}, cluster.error ?? 'not asked yet'));
    return card;
  }
  const { map } = status;
  const leads = new Map();
  for (const node of Object.values(cluster.leaders)) leads.set(node, (leads.get(node) ?? 0) + 1);
  const led = map.groups.length - cluster.leaderless.length;
  card.append(make('p', {}, `${led} of ${count(map.groups.length, 'group')} led · ${
    count(map.namespaces.length, 'namespace')} · epoch\u00a0${map.epoch}`));
  if (cluster.error) card.append(make('p', {}, cluster.error));
  const names = new Set([...map.nodes, ...map.syncers].map((process) => process.datacenter));
  card.append(make('div', { class: 'dcs' }, ...[...names].sort().map((name) => datacenter(name, status, leads))));
  return card;
}

// ---- links ----

function arrow(link, leftwards) {
  const state = link.state ?? 'unknown';
  const broken = !MOVING.includes(state);
  const moving = !broken && link.lag_p50_seconds !== null;
  const line = make('path', {
    d: leftwards ? 'M298 8H8' : 'M2 8H292', fill: 'none', stroke: 'currentColor', 'stroke-width': 2,
    'stroke-dasharray': broken ? '2 7' : moving ? '10 6' : null,
    class: moving ? 'flowing' : null, 'vector-effect': 'non-scaling-stroke',
  });
  const svg = make('svg', { viewBox: '0 0 300 16', preserveAspectRatio: 'none', 'aria-hidden': 'true', 'data-state': state }, line);
  const head = make('path', { d: leftwards ? 'M10 2L0 8l10 6z' : 'M290 2l10 6-10 6z', fill: 'currentColor' });
  svg.append(broken ? make('path', { d: 'M144 3l12 10M156 3l-12 10', stroke: 'currentColor', 'stroke-width': 2 }) : head);
  return svg;
}

function spark(name) {
  const lags = history.get(name) ?? [];
  const known = lags.filter((lag) => lag !== null);
  if (known.length < 3) return null;
  const top = Math.max(...known, 0.05);
  const points = lags
    .map((lag, n) => (lag === null ? null : `${(300 - (lags.length - 1 - n) * (300 / HISTORY)).toFixed(1)},${(24 - (lag / top) * 22).toFixed(1)}`))
    .filter((point) => point !== null);
  return make('svg', { class: 'spark', viewBox: '0 0 300 26', preserveAspectRatio: 'none', role: 'img', 'aria-label': `lag of the last two minutes, at most ${seconds(Math.max(...known))}` },
    make('title', {}, `lag, last two minutes: at most ${seconds(Math.max(...known))}`),
    make('polyline', { points: points.join(' '), fill: 'none', stroke: 'currentColor', 'stroke-width': 1.5, 'vector-effect': 'non-scaling-stroke' }));
}

function linkRow(link, leftwards) {
  const state = link.state ?? 'unknown';
  const where = link.state && link.affected < link.groups ? ` in ${link.affected} of ${link.groups} groups` : '';
  const numbers = make('p', { class: 'numbers' });
  if (link.state) {
    const behind = link.lag_seconds > (link.lag_p99_seconds ?? 0);
    numbers.append(
      ...(behind
        ? [make('b', {}, seconds(link.lag_seconds)), ' behind']
        : link.lag_p99_seconds === null
          ? ['nothing sent in the last minute']
          : ['lag p99 ', make('b', {}, seconds(link.lag_p99_seconds)), ` · p50 ${seconds(link.lag_p50_seconds)}`]),
      link.backlog_entries ? ` · ${count(link.backlog_entries, 'entry', 'entries')} (${bytes(link.backlog_bytes)}) waiting` : ' · nothing waiting',
      link.merge_done !== null ? ` · ${Math.round(link.merge_done * 100)} % merged` : '',
      link.runway_seconds !== null
        ? make('b', { class: 'runway' }, ` · backlog full in ${seconds(link.runway_seconds)}`) : '',
      link.different_slots
        ? make('b', { class: 'runway' }, ` · ${count(link.different_slots, 'slot')} differ${link.different_slots === 1 ? 's' : ''}`)
        : link.audit_age_seconds !== null ? ` · compared ${seconds(link.audit_age_seconds)} ago` : '',
      link.rtt_ms ? ` · round trip ${seconds(link.rtt_ms / 1000)}` : '');
  }
  return make('div', { class: 'link' },
    make('div', { class: 'ends' }, make('b', {}, `${link.from} → ${link.to}`),
      make('span', { class: 'state', 'data-state': state }, STATES[state] + where),
      link.standing && link.standing !== 'live'
        ? make('span', { class: 'standing', title: `what ${link.to} counts for at ${link.from}` },
          ` ${link.to} is ${link.standing}`) : ''),
    arrow(link, leftwards), numbers, spark(`${link.from}→${link.to}`),
    MOVING.includes(state) || !link.detail ? null : make('p', { class: 'detail' }, link.detail));
}

function fleet(overview) {
  const cards = overview.clusters.map(clusterCard);
  const pair = cards.length === 2;
  byId('fleet').className = pair ? 'fleet pair' : 'fleet';
  const home = overview.clusters[0]?.name;
  const rows = overview.links.map((link) => linkRow(link, pair && link.from !== home));
  const links = rows.length ? make('div', { class: 'links' }, ...rows) : null;
  const parts = pair ? [cards[0], links ?? make('p', { class: 'empty' }, 'no links'), cards[1]] : [...cards, links];
  return parts.filter((part) => part !== null);
}

// ---- groups ----

function linkCell(links, peer) {
  const link = links.find((one) => one.peer === peer.id);
  if (!link) return make('td', {}, make('span', { class: 'quiet' }, '–'));
  const lag = link.state === 'live' && link.lag_p99_seconds === null && link.lag_seconds === 0
    ? '' : ` ${seconds(Math.max(link.lag_seconds, link.lag_p99_seconds ?? 0))}`;
  return make('td', { title: link.detail },
    make('span', { class: 'state', 'data-state': link.state }, STATES[link.state] ?? link.state), lag,
    link.backlog_entries ? make('span', { class: 'quiet' }, ` ${count(link.backlog_entries, 'entry', 'entries')}`) : '');
}

function groupRow(cluster, group, linksByGroup) {
  const { status } = cluster;
  const leader = cluster.leaders[group.id] ?? null;
  const links = linksByGroup.get(group.id) ?? [];
  const namespace = status.map.namespaces.find((one) => one.id === group.namespace);
  const replicas = group.replicas.map((replica) => {
    const node = status.map.nodes.find((one) => one.name === replica.node);
    const last = status.replicas.find((one) => one.group === group.id && one.replica === replica.id);
    return make('span', {
      class: `replica dot${node?.alive ? '' : ' silent'}${replica.node === leader ? ' leads' : ''}`,
      title: `replica ${replica.id} in ${node?.datacenter ?? '?'}, applied ${last ? `${last.applied.term}-${last.applied.index}` : 'nothing yet'}`,
    }, replica.node, node?.alive ? '' : ' silent');
  });
  const hold = group.learners.map((learner) => learner.syncer).join(', ');
  return make('tr', {},
    make('td', { class: 'number' }, String(group.id)),
    make('td', {}, namespace?.name ?? '?'),
    make('td', { class: 'number' }, `${group.slots.first}–${group.slots.last}`),
    make('td', {}, leader ?? make('span', { class: 'none' }, '✕ none'),
      leader && leader !== group.preferred_leader ? make('span', { class: 'quiet' }, ` (prefers ${group.preferred_leader})`) : ''),
    make('td', {}, ...replicas),
    make('td', {}, hold || make('span', { class: 'quiet' }, '–')),
    ...status.map.peers.map((peer) => linkCell(links, peer)));
}

function groupTable(cluster) {
  const { status } = cluster;
  const linksByGroup = new Map();
  for (const link of status.links) {
    linksByGroup.set(link.group, [...(linksByGroup.get(link.group) ?? []), link]);
  }
  const troubled = (group) => cluster.leaderless.includes(group.id)
    || (linksByGroup.get(group.id) ?? []).some((link) => link.state !== 'live');
  let { groups } = status.map;
  const cut = groups.length > ROWS_MAX;
  if (cut) groups = [...groups].sort((a, b) => troubled(b) - troubled(a) || a.id - b.id).slice(0, ROWS_MAX);
  const open = folded.get(cluster.name) ?? cluster.here;
  const head = ['Group', 'Namespace', 'Slots', 'Leader', 'Replicas', 'Syncer',
    ...status.map.peers.map((peer) => `to ${peer.name}`)];
  const details = make('details', { open },
    make('summary', {}, cluster.name, ' ', make('small', {}, count(status.map.groups.length, 'group'))),
    status.map.groups.length === 0
      ? make('p', { class: 'empty' }, 'No groups yet. They are created with the first namespace.')
      : make('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `groups of ${cluster.name}` },
        make('table', {},
          make('thead', {}, make('tr', {}, ...head.map((title) => make('th', { scope: 'col', class: ['Group', 'Slots'].includes(title) ? 'number' : null }, title)))),
          make('tbody', {}, ...groups.map((group) => groupRow(cluster, group, linksByGroup))))),
    cut ? make('p', { class: 'empty' }, `The first ${ROWS_MAX} are shown, those with trouble first.`) : null);
  details.addEventListener('toggle', () => folded.set(cluster.name, details.open));
  return details;
}

// ---- the loop ----

function show(overview) {
  remember(overview.links);
  const verdict = byId('verdict');
  verdict.dataset.level = overview.verdict.level;
  setText(byId('sentence'), overview.verdict.sentence);
  const [here] = overview.clusters;
  setText(byId('cluster'), here?.name ?? '');
  document.title = `${{ ok: '✓', warn: '▲', bad: '✕' }[overview.verdict.level] ?? ''} ${here?.name ?? ''} · Flotilla`;
  const problems = overview.clusters.flatMap((cluster) => (cluster.status?.problems ?? [])
    .map((line) => (cluster.here ? line : `${cluster.name}: ${line}`)));
  byId('problems').hidden = problems.length === 0;
  draw('problem-list', problems, () => problems.map((line) => make('li', {}, ...marked(line))));
  const still = overview.clusters.map(({ age_seconds, ...rest }) => rest);
  draw('fleet', [still, overview.links, [...history]], () => fleet(overview));
  draw('groups', still, () => overview.clusters.filter((cluster) => cluster.status).map(groupTable));
  setText(byId('source'), `as ${overview.pd} sees it`);
}

function showFreshness() {
  const age = Date.now() - answeredAt;
  const stale = answeredAt !== 0 && age > STALE_AFTER_MS;
  document.body.classList.toggle('stale', stale);
  if (answeredAt === 0) {
    setText(byId('freshness'), complaint || 'connecting');
  } else if (stale) {
    setText(byId('freshness'), `last answer ${seconds(age / 1000)} ago`);
    byId('verdict').dataset.level = 'warn';
    setText(byId('sentence'), `PD does not answer${complaint ? ` (${complaint})` : ''}. What follows is old; clients are served without it.`);
  } else {
    setText(byId('freshness'), 'live');
  }
}

async function ask() {
  try {
    const answer = await fetch('/api/v1/overview', { signal: AbortSignal.timeout(DEADLINE_MS), cache: 'no-store' });
    if (!answer.ok) throw new Error(`it says ${answer.status}`);
    const overview = await answer.json();
    answeredAt = Date.now();
    complaint = '';
    show(overview);
  } catch (error) {
    complaint = error.name === 'TimeoutError' ? 'no answer in time' : error.message;
  }
  showFreshness();
}

async function run() {
  for (;;) {
    if (!document.hidden) await ask();
    await new Promise((wake) => { setTimeout(wake, EVERY_MS); });
  }
}

document.addEventListener('visibilitychange', () => { if (!document.hidden) ask(); });
run();
