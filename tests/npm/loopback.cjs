// Loaded before a program (node --require): its servers listen on 127.0.0.1 only, and say where on standard error.
// Neither server-everything nor the conformance suite has an option for it; both would listen on all addresses.
const net = require("node:net");

const listen = net.Server.prototype.listen;

net.Server.prototype.listen = function (port, ...rest) {
  const callback = rest.find((each) => typeof each === "function");
  this.once("listening", () => console.error(`listening on ${this.address().port}`));
  if (callback) this.once("listening", callback);
  // With a handle rather than a host: looking a host up takes a turn of the event loop, and the suite does not wait.
  return listen.call(this, net._createServerHandle("127.0.0.1", Number(port), 4));
};
