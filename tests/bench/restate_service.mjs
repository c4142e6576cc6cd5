// Restate's part of engine_vs_restate.py: the same steps, written with Restate's SDK. Every step is one POST inside
// `ctx.run`, with an idempotency key of its own; its input is the output of the step before.
//   node restate_service.mjs SDK_FOLDER PORT STEPS_PORT
import http from "node:http";
import { createRequire } from "node:module";

Promise.withResolvers ??= function () { // the SDK needs it, and Node 20 does not have it
  let resolve, reject;
  const promise = new Promise((onResolve, onReject) => { resolve = onResolve; reject = onReject; });
  return { promise, resolve, reject };
};
const [sdkFolder, port, stepsPort] = process.argv.slice(2);
const restate = createRequire(`${sdkFolder}/`)("@restatedev/restate-sdk");
const agent = new http.Agent({ keepAlive: true, maxSockets: 256, noDelay: true });

function post(path, key, body) {
  const text = JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(text), "idempotency-key": key };
    const request = http.request({ host: "127.0.0.1", port: stepsPort, path, method: "POST", agent, headers }, (reply) => {
      let whole = "";
      reply.setEncoding("utf8");
      reply.on("data", (part) => { whole += part; });
      reply.on("end", () => (reply.statusCode === 200 ? resolve(JSON.parse(whole)) : reject(new Error(`status ${reply.statusCode}`))));
      reply.on("error", reject);
    });
    request.on("error", reject);
    request.end(text);
  });
}

const bench = restate.service({
  name: "bench",
  handlers: {
    sequence: async (ctx) => {
      let last = { ok: 0 };
      for (let n = 0; n < 10; n++) last = await ctx.run(`s${n}`, () => post(`/s${n}`, `${ctx.request().id}-${n}`, { after: last.ok }));
      return { last: last.ok };
    },
    fan: async (ctx) => {
      const calls = Array.from({ length: 10 }, (_, n) => ctx.run(`s${n}`, () => post(`/s${n}`, `${ctx.request().id}-${n}`, { n })));
      const all = await restate.RestatePromise.all(calls);
      return { last: all[9].ok };
    },
  },
});
restate.serve({ services: [bench], port: Number(port) });
