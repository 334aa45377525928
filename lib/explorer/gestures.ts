/** What pointers and wheels do on a drawing: drag an action, move the view, zoom with two fingers or the wheel. */

/** Where a gesture is, in pixels from the left of the drawing, and on which bar it began. */
export interface Place {
  readonly rank: number;
  readonly index: number;
}

/** What gestures mean. */
export interface Gestures {
  /** A bar is dragged, and the pointer is there. */
  drag(bar: Place, x: number): void;
  /** It is dropped there. */
  drop(bar: Place, x: number): void;
  /** It is not: the gesture was given up. */
  cancel(): void;
  /** A bar was clicked. */
  choose(bar: Place): void;
  /** The view is moved by so many pixels to the left. */
  pan(pixels: number): void;
  /** The view is zoomed about a place. */
  zoom(factor: number, x: number): void;
}

/** Pixels within which a press is a click. */
const slack = 5;

/** The bar that an element belongs to. */
export function placeOf(target: EventTarget | null): Place | undefined {
  const bar = target instanceof Element ? target.closest<SVGGElement>("[data-rank]") : null;
  return bar ? { rank: Number(bar.dataset.rank), index: Number(bar.dataset.index) } : undefined;
}

/** Listens to a drawing. */
export function watchGestures(drawing: SVGSVGElement, gestures: Gestures): void {
  const xOf = (event: MouseEvent) => event.clientX - drawing.getBoundingClientRect().left;
  /** By pointer where it is. */
  const pointers = new Map<number, number>();
  let pressed: { bar?: Place; from: number; moving: boolean } | undefined;
  const end = (event: PointerEvent, drops: boolean) => {
    if (!pointers.delete(event.pointerId) || !pressed) return;
    const { bar, moving } = pressed;
    pressed = undefined;
    if (bar && moving) drops ? gestures.drop(bar, xOf(event)) : gestures.cancel();
    else if (bar && drops) gestures.choose(bar);
  };
  drawing.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pointers.set(event.pointerId, xOf(event));
    if (pointers.size > 1) { // a second finger: what the first one did was no drag
      if (pressed?.bar && pressed.moving) gestures.cancel();
      pressed = undefined;
      return;
    }
    pressed = { bar: placeOf(event.target), from: xOf(event), moving: false };
  });
  drawing.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId), x = xOf(event);
    if (before === undefined) return;
    if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)![1];
      gestures.zoom(Math.max(Math.abs(x - other), 20) / Math.max(Math.abs(before - other), 20), (x + other) / 2);
      gestures.pan((before - x) / 2);
    } else if (pressed) {
      if (!pressed.moving && Math.abs(x - pressed.from) > slack) {
        pressed.moving = true;
        drawing.setPointerCapture(event.pointerId);
      }
      if (!pressed.moving) return;
      if (pressed.bar) gestures.drag(pressed.bar, x);
      else gestures.pan(before - x);
    }
    pointers.set(event.pointerId, x);
  });
  drawing.addEventListener("pointerup", (event) => end(event, true));
  drawing.addEventListener("pointercancel", (event) => end(event, false));
  drawing.addEventListener("pointerleave", (event) => {
    if (!drawing.hasPointerCapture(event.pointerId)) end(event, false);
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !pressed?.moving) return;
    pressed = undefined;
    pointers.clear();
    gestures.cancel();
  });
  drawing.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) gestures.zoom(Math.exp(-event.deltaY / 200), xOf(event));
    else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      gestures.pan(event.deltaX || event.deltaY);
    } else return; // the page scrolls
    event.preventDefault();
  }, { passive: false });
}
