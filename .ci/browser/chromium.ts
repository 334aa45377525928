/** Headless Chromium out of the npm package `@sparticuz/chromium`, with one page, driven over its DevTools protocol. */
import { type ChildProcess, spawn } from "node:child_process";
import { cpSync, createReadStream, createWriteStream, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { pathToFileURL } from "node:url";
import { createBrotliDecompress } from "node:zlib";
import { findArchive, withBundle } from "../../lib/gpu/bundle.ts";

/** An open page. */
export interface Page {
  /** The value of an expression, a promise's when it is there; plain data. Throws what it throws. */
  evaluate(expression: string): Promise<unknown>;
  /** Ends the browser and takes its files away. */
  close(): Promise<void>;
}

/** What has WebGPU computed by the SwiftShader that the package brings along, on a machine without a GPU or a display. */
export const swiftShaderFlags: readonly string[] = [
  ...["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"],
  ...["--use-vulkan=swiftshader", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"],
  "--disable-dev-shm-usage",
];

const flags = [
  ...["--headless=shell", "--no-sandbox", "--no-zygote", "--no-first-run", "--remote-debugging-port=0"],
  ...swiftShaderFlags,
];

/** Of the page. */
const title = "twobp";

/** How long the browser may take to say where it listens, on a machine that is busy. */
const startMs = 60_000;

/** Opens an empty page. It is a file, since WebGPU wants a secure context. */
export async function openPage(): Promise<Page> {
  const folder = mkdtempSync(join(tmpdir(), "twobp-browser-"));
  let browser: ChildProcess | undefined, socket: WebSocket | undefined;
  const close = async () => {
    socket?.close();
    if (browser && browser.exitCode === null) {
      const ended = new Promise((resolve) => browser!.once("exit", resolve));
      browser.kill("SIGKILL");
      await ended;
    }
    rmSync(folder, { recursive: true, force: true, maxRetries: 10 });
  };
  try {
    const packed = findArchive("chromium.br");
    if (!packed) throw new Error("The package @sparticuz/chromium is not installed");
    const program = join(folder, "chromium"), page = join(folder, "page.html");
    await pipeline(createReadStream(packed), createBrotliDecompress(), createWriteStream(program, { mode: 0o700 }));
    await withBundle("swiftshader", (bundle) => cpSync(bundle.folder, folder, { recursive: true }));
    writeFileSync(page, `<title>${title}</title>`);
    const own = [`--user-data-dir=${join(folder, "user")}`, pathToFileURL(page).href];
    browser = spawn(program, [...flags, ...own], { stdio: ["ignore", "ignore", "pipe"] });
    socket = await connect(await addressOf(browser), pathToFileURL(page).href);
    const evaluate = evaluator(socket);
    // A page is listed before it is there, and what is evaluated until then is gone with the empty one in its place.
    const isThere = `document.title === "${title}" && document.readyState === "complete"`;
    for (let look = 0; !await evaluate(isThere); look++) {
      if (look > 500) throw new Error("Chromium does not load its page");
      await new Promise((later) => setTimeout(later, 100));
    }
    return { evaluate, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Where the browser listens, which it says on standard error. */
function addressOf(browser: ChildProcess): Promise<string> {
  let said = "";
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`Chromium does not start: ${said}`)), startMs);
    const end = () => clearTimeout(timer);
    browser.once("error", reject).once("exit", (code) => {
      end();
      reject(new Error(`Chromium has ended with code ${code}: ${said}`));
    });
    browser.stderr!.on("data", (chunk) => {
      said += chunk;
      const [, host] = /DevTools listening on ws:\/\/([^/]+)\//.exec(said) ?? [];
      if (host === undefined) return;
      end();
      resolve(host);
    });
  });
}

async function connect(host: string, url: string): Promise<WebSocket> {
  for (let look = 0; look < 100; look++) {
    const pages: { url: string; webSocketDebuggerUrl: string }[] = await (await fetch(`http://${host}/json/list`))
      .json();
    const found = pages.find((each) => each.url === url);
    if (found) {
      const socket = new WebSocket(found.webSocketDebuggerUrl);
      await new Promise((resolve, reject) => Object.assign(socket, { onopen: resolve, onerror: reject }));
      return socket;
    }
    await new Promise((later) => setTimeout(later, 100));
  }
  throw new Error(`Chromium has no page ${url}`);
}

/** What the protocol answers to `Runtime.evaluate`. */
interface Answer {
  readonly id?: number;
  readonly error?: { readonly message: string };
  readonly result?: {
    readonly result: { readonly value?: unknown };
    readonly exceptionDetails?: { readonly text: string; readonly exception?: { readonly description?: string } };
  };
}

function evaluator(socket: WebSocket): Page["evaluate"] {
  const waiting = new Map<number, { resolve(answer: Answer): void; reject(error: Error): void }>();
  let last = 0;
  socket.onmessage = ({ data }) => {
    const answer: Answer = JSON.parse(data);
    if (answer.id === undefined) return; // news that nobody asked for
    waiting.get(answer.id)?.resolve(answer);
    waiting.delete(answer.id);
  };
  socket.onclose = () => waiting.forEach(({ reject }) => reject(new Error("Chromium has closed the page")));
  return async (expression) => {
    const id = ++last;
    const { error, result } = await new Promise<Answer>((resolve, reject) => {
      waiting.set(id, { resolve, reject });
      const params = { expression, awaitPromise: true, returnByValue: true };
      socket.send(JSON.stringify({ id, method: "Runtime.evaluate", params }));
    });
    if (error) throw new Error(error.message);
    const { exceptionDetails: thrown } = result!;
    if (thrown) throw new Error(thrown.exception?.description ?? thrown.text);
    return result!.result.value;
  };
}
