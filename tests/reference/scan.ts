/** What a scan reads, [rows, channels] for x, dtRaw and z, [rows, state] for b and c. */
export interface Scan {
  readonly x: ArrayLike<number>;
  readonly dtRaw: ArrayLike<number>;
  readonly b: ArrayLike<number>;
  readonly c: ArrayLike<number>;
  readonly z: ArrayLike<number>;
  readonly aLog: ArrayLike<number>;
  readonly d: ArrayLike<number>;
  readonly dtBias: ArrayLike<number>;
}

const sigmoid = (value: number) => 1 / (1 + Math.exp(-value));
const softplus = (value: number) => Math.max(value, 0) + Math.log1p(Math.exp(-Math.abs(value)));

/** The gated selective scan in float64, with all states h, [rows, channels, state], and y before the gate. */
export function selectiveScan({ x, dtRaw, b, c, z, aLog, d, dtBias }: Scan, length: number) {
  const channels = d.length, state = aLog.length / channels, rows = x.length / channels;
  const h = new Float64Array(x.length * state), y = new Float64Array(x.length);
  for (let r = 0; r < rows; r++) {
    for (let i = r * channels; i < (r + 1) * channels; i++) {
      const channel = i % channels;
      const dt = softplus(dtRaw[i] + dtBias[channel]);
      y[i] = d[channel] * x[i];
      for (let n = 0; n < state; n++) {
        const before = r % length === 0 ? 0 : h[(i - channels) * state + n];
        const decay = Math.exp(-dt * Math.exp(aLog[channel * state + n]));
        h[i * state + n] = decay * before + dt * b[r * state + n] * x[i];
        y[i] += c[r * state + n] * h[i * state + n];
      }
    }
  }
  return { out: y.map((value, i) => value * z[i] * sigmoid(z[i])), h, y };
}

/** The gradients of {@link selectiveScan}'s out with respect to everything it reads, and to y; named as what they belong to. */
export function selectiveScanBackward(
  dout: ArrayLike<number>,
  scan: Scan,
  length: number,
): Record<keyof Scan | "y", Float64Array> {
  const { x, dtRaw, b, c, z, aLog, d, dtBias } = scan;
  const channels = d.length, state = aLog.length / channels, rows = x.length / channels;
  const { h, y } = selectiveScan(scan, length);
  const zeros = (like: ArrayLike<number>) => new Float64Array(like.length);
  const to = {
    ...{ x: zeros(x), dtRaw: zeros(dtRaw), b: zeros(b), c: zeros(c), z: zeros(z) },
    ...{ aLog: zeros(aLog), d: zeros(d), dtBias: zeros(dtBias), y: zeros(x) },
  };
  const g = zeros(h);
  for (let r = rows - 1; r >= 0; r--) {
    for (let i = r * channels; i < (r + 1) * channels; i++) {
      const channel = i % channels;
      const dt = softplus(dtRaw[i] + dtBias[channel]);
      const s = sigmoid(z[i]);
      const dy = to.y[i] = dout[i] * z[i] * s;
      to.z[i] = dout[i] * y[i] * (s + z[i] * s * (1 - s));
      to.d[channel] += dy * x[i];
      to.x[i] = dy * d[channel];
      let ddt = 0;
      for (let n = 0; n < state; n++) {
        const a = -Math.exp(aLog[channel * state + n]);
        const at = i * state + n, next = at + channels * state, previous = at - channels * state;
        const decay = Math.exp(dt * a);
        g[at] += dy * c[r * state + n];
        if (r % length !== length - 1) {
          g[at] += g[next] * Math.exp(a * softplus(dtRaw[i + channels] + dtBias[channel]));
        }
        const before = r % length === 0 ? 0 : h[previous];
        to.c[r * state + n] += dy * h[at];
        to.b[r * state + n] += g[at] * dt * x[i];
        to.x[i] += g[at] * dt * b[r * state + n];
        ddt += g[at] * (b[r * state + n] * x[i] + a * decay * before);
        to.aLog[channel * state + n] += g[at] * dt * decay * before * a;
      }
      to.dtRaw[i] = ddt * sigmoid(dtRaw[i] + dtBias[channel]);
      to.dtBias[channel] += to.dtRaw[i];
    }
  }
  return to;
}

/** The same of one sequence's next rows, from the state [state / 4, channels, 4] after those before; the state after the last is given too. */
export function selectiveScanOn({ x, dtRaw, b, c, z, aLog, d, dtBias }: Scan, before: ArrayLike<number>) {
  const channels = d.length, state = aLog.length / channels, rows = x.length / channels;
  const h = Float64Array.from(before), out = new Float64Array(x.length);
  for (let row = 0; row < rows; row++) {
    for (let channel = 0; channel < channels; channel++) {
      const i = row * channels + channel, dt = softplus(dtRaw[i] + dtBias[channel]);
      let y = d[channel] * x[i];
      for (let n = 0; n < state; n++) {
        const at = (Math.floor(n / 4) * channels + channel) * 4 + n % 4, a = -Math.exp(aLog[channel * state + n]);
        h[at] = Math.exp(dt * a) * h[at] + dt * b[row * state + n] * x[i];
        y += c[row * state + n] * h[at];
      }
      out[i] = y * z[i] * sigmoid(z[i]);
    }
  }
  return { out, states: h };
}
