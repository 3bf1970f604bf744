// Loaded before a program (node --require): its servers listen on 127.0.0.1 only, and say where on standard error.
// Neither server-everything nor the conformance suite has an option for it; both would listen on all addresses.
const net = require("node:net");

const listen = net.Server.prototype.listen;

net.Server.prototype.listen = function (port, ...rest) {
  if (port !== null && typeof port === "object") return listen.call(this, port, ...rest);
  const host = typeof rest[0] === "string" ? [] : ["127.0.0.1"];
  this.once("listening", () => console.error(`listening on ${this.address().port}`));
  return listen.call(this, Number(port), ...host, ...rest);
};
