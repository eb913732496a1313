/** Options, as the errors of the library name them, and the flags that set them. */
export const flags: Readonly<Record<string, string>> = {
  allow: '--allow',
  deny: '--deny',
  flowTimeout: '--flow-timeout',
  basicAuth: '--basic-auth',
  host: '--host',
  hostHeader: '--host-header',
  hostname: '--hostname',
  limit: '--limit',
  maxFlows: '--max-flows',
  mode: '--mode',
  ports: '--ports',
  proxyProtocol: '--proxy-protocol',
  publicHost: '--public-host',
  sockets: '--sockets',
  udpHost: '--udp-host',
  waitForTarget: '--wait',
  'http.caddy': '--caddy',
  'http.domain': '--domain',
  'http.port': '--http-port',
  'http.trustedProxies': '--trust-proxy',
  'conditions.bandwidth': '--bandwidth',
  'conditions.closeAfter': '--close-after',
  'conditions.dropRate': '--drop-rate',
  'conditions.duplicateRate': '--duplicate-rate',
  'conditions.jitter': '--jitter',
  'conditions.latency': '--latency',
  'conditions.reorderRate': '--reorder-rate',
  'conditions.resetAfter': '--reset-after',
  'conditions.seed': '--seed',
  'conditions.slice.gap': '--slice',
  'conditions.slice.size': '--slice',
  'the option insecure': '--insecure',
  'the option sockets': '--sockets',
  'the option tls': '--tls',
  'the option tls.ca': '--ca',
  'tls.ca': '--ca',
  'tls: false': '--no-tls',
}

/** At the beginning, any name; behind that, those alone that are no words of a sentence. */
const name = /^[\w.]+|\bthe option [a-z.]+|\b[a-z]+[A-Z]\w*|\b(?:conditions|tls)(?:\.\w+)+|\btls: false\b/g

/** Of a configuration file, whose options have the names of the library. */
const ofFile = /^[^:]+\.(?:[cm]?[jt]s|json|toml)\b/

/** An error's sentence for who knows flags, and none of the names that options have in the library. */
export function inFlags(message: string): string {
  return ofFile.test(message) ? message : message.replace(name, (one) => flags[one] ?? one)
}
