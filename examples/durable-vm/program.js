// The program that runs in the interpreter: ships that carry goods from port to port. It knows nothing of checkpoints, and is written as if it
// ran for ever: what it has is in variables, Maps, closures and generators, and each ship is an async function that is at its `await` most of the time.
'use strict';

const goods = ['barley', 'cloth', 'iron', 'salt', 'timber', 'wine'];
const hours = new Map(); // hour -> what is to be woken then
const ships = new Map();
const history = new Map(); // every voyage that was ever made; grows
let now = 0; // hours since the beginning
let digest = 0x811c9dc5;

function random(below) {
  return Math.floor(Math.random() * below);
}

/** Every voyage, in order: whoever forgets one, or makes another, has another number from then on. */
function note(text) {
  for (let k = 0; k < text.length; k++) digest = Math.imul(digest ^ text.charCodeAt(k), 0x01000193);
}

/** Its books are the variables of a closure. */
function makePort(name) {
  let money = 100_000;
  let entries = 0;
  const stock = Object.fromEntries(goods.map((good) => [good, 1000 + random(1000)]));
  return {
    name,
    stock,
    move(good, crates, price) {
      stock[good] += crates;
      money -= price;
      entries++;
    },
    books: () => ({ money, entries }),
  };
}

const ports = ['Amberquay', 'Cedarmouth', 'Fathom', 'Gravelholm', 'Kelpness', 'Lagoon', 'Oysterby', 'Shoalhaven', 'Tidewell', 'Wharf End'].map(makePort);
const distances = Float64Array.from({ length: ports.length ** 2 }, (_, k) => {
  const [from, to] = [Math.floor(k / ports.length), k % ports.length];
  return Math.abs(from - to) * 37.5;
});
const crates = countCrates();

const names = (function* () {
  for (let n = 1; ; n++) for (const colour of ['Red', 'Blue', 'Green', 'White', 'Black']) yield `${colour} ${['Heron', 'Otter', 'Petrel', 'Seal'][n % 4]} ${n}`;
})();

function until(hour) {
  return new Promise((wake) => {
    if (!hours.has(hour)) hours.set(hour, []);
    hours.get(hour).push(wake);
  });
}

/** The life of a ship. Where it is in it, and `leg`, `from` and `to`, are in the memory of the interpreter while it waits. */
async function sail(ship) {
  let from = random(ports.length);
  const legs = 3 + random(12);
  for (let leg = 1; leg <= legs; leg++) {
    const to = (from + 1 + random(ports.length - 1)) % ports.length;
    const good = goods[random(goods.length)];
    const load = Math.min(1 + random(60), ports[from].stock[good]);
    const price = load * (3 + random(20));
    ports[from].move(good, -load, -price);
    ship.hold[good] += load;
    ship.money -= price;

    await until(now + 24 + random(168));

    ports[to].move(good, load, price + leg);
    ship.hold[good] -= load;
    ship.money += price + leg;
    ship.miles += distances[from * ports.length + to];
    const entry = `${String(now).padStart(6, '0')} ${ship.name}: ${load} crates of ${good} from ${ports[from].name} to ${ports[to].name}`;
    ship.log.push(entry);
    note(entry);
    from = to;
  }
  ships.delete(ship.name);
  ports[from].move(goods[0], 0, -ship.money);
  history.set(ship.name, { miles: ship.miles, left: new Date().toISOString(), log: ship.log.join('\n') });
}

function launch() {
  const ship = { name: names.next().value, money: 0, miles: 0, hold: Object.fromEntries(goods.map((good) => [good, 0])), log: [] };
  ships.set(ship.name, ship);
  void sail(ship);
}
for (let k = 0; k < 150; k++) launch();

/** One step. Those that are woken here go on when this has returned: the host runs the queue of the interpreter then. */
function advance() {
  now++;
  if (random(4) === 0) launch();
  for (const wake of hours.get(now) ?? []) wake();
  hours.delete(now);
}

/** Looks at every ship there is: of each page that this touches few bytes are others afterwards. */
function afloat() {
  let crates = 0;
  for (const { hold } of ships.values()) for (const good of goods) crates += hold[good];
  return crates;
}

function report() {
  return JSON.stringify({ step: now, ships: ships.size, voyages: history.size, afloat: afloat(), digest: (digest >>> 0).toString(16).padStart(8, '0') });
}

function countCrates() {
  const stocks = [...ports.map(({ stock }) => stock), ...[...ships.values()].map(({ hold }) => hold)];
  return stocks.flatMap(Object.values).reduce((sum, count) => sum + count, 0);
}

/** Looks at everything there is. (For a copy: even looking changes memory, because objects are counted.) */
function audit() {
  const problems = [];
  const money = ports.reduce((sum, port) => sum + port.books().money, 0) + [...ships.values()].reduce((sum, ship) => sum + ship.money, 0);
  if (money !== ports.length * 100_000) problems.push(`there is money for ${money}`);
  if (countCrates() !== crates) problems.push(`there are ${countCrates()} crates, and were ${crates}`);
  const waiting = [...hours.values()].reduce((sum, { length }) => sum + length, 0);
  if (waiting !== ships.size) problems.push(`${waiting} of ${ships.size} ships are under way`);
  const legs = [...ships.values(), ...[...history.values()].map(({ log }) => ({ log: log.split('\n') }))].reduce((sum, { log }) => sum + log.length, 0);
  const entries = ports.reduce((sum, port) => sum + port.books().entries, 0);
  if (entries !== 2 * legs + history.size + ships.size) problems.push(`${entries} entries in the books, and ${legs} in the logs`);
  return JSON.stringify(problems);
}
