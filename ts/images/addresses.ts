import { isIP } from "node:net";

/** Ranges that lead to this machine, its networks, to many machines, or nowhere: the special-purpose registries of IANA. */
const closed4 = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.88.99.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/3",
  // The metadata of Azure, which lies at a public address.
  "168.63.129.16/32",
].map((range) => {
  const [base = "", bits] = range.split("/");
  return { base: number4(base), mask: (-1 << (32 - Number(bits))) >>> 0 };
});

/** Whether an IP address is one of the public internet. */
export function isPublic(address: string): boolean {
  const plain = address.replace(/^\[(.*)\]$/, "$1").replace(/%.*$/, "");
  if (isIP(plain) === 4) return isPublic4(number4(plain));
  const groups = isIP(plain) === 6 ? groups6(plain) : undefined;
  return groups !== undefined && isPublic6(groups);
}

function isPublic4(address: number): boolean {
  return !closed4.some(({ base, mask }) => (address & mask) >>> 0 === base);
}

function isPublic6(groups: readonly number[]): boolean {
  const [a = 0, b = 0] = groups;
  const starts = (...head: number[]): boolean => head.every((group, index) => groups[index] === group);
  const inner = (at: number): boolean => isPublic4((((groups[at] ?? 0) << 16) | (groups[at + 1] ?? 0)) >>> 0);
  // Addresses that embed an IPv4 address lead there: mapped, NAT64, 6to4.
  if (starts(0, 0, 0, 0, 0, 0xffff) || starts(0x64, 0xff9b, 0, 0, 0, 0)) return inner(6);
  if (a === 0x2002) return inner(1);
  // Protocols (Teredo among them), documentation, and all that is not global unicast.
  if (a === 0x2001 && (b < 0x200 || b === 0xdb8)) return false;
  if (a === 0x3fff && b < 0x1000) return false;
  return a >= 0x2000 && a <= 0x3fff;
}

function number4(address: string): number {
  return address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

/** The eight groups of an address that is valid. */
function groups6(address: string): number[] {
  const hex = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...parts: string[]) => {
    const [a, b, c, d] = parts.slice(0, 4).map(Number) as [number, number, number, number];
    return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
  });
  const [head = "", tail] = hex.split("::");
  const read = (text: string): number[] =>
    text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16));
  const [first, last] = [read(head), read(tail ?? "")];
  return tail === undefined ? first : [...first, ...Array(8 - first.length - last.length).fill(0), ...last];
}
