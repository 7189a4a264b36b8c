/** The look of the live head, in the page's own colours, and what the drawn parts take from them. */
import { element } from "./dom.js"

const RULES = `
.f3d-live { --ink: var(--input-text, #ddd); --soft: color-mix(in srgb, var(--ink) 58%, transparent);
  --line: color-mix(in srgb, var(--ink) 14%, transparent); --well: color-mix(in srgb, var(--ink) 6%, transparent);
  --accent: #4aa3ff; --floor: color-mix(in srgb, var(--comfy-menu-bg, #333) 60%, var(--comfy-input-bg, #222)); display: flex; flex-direction: column; min-height: 0; box-sizing: border-box; overflow: hidden;
  font: 12px/1.3 Inter, system-ui, sans-serif; color: var(--ink); border-radius: 10px; user-select: none;
  background: var(--floor); border: 1px solid var(--line); }
.f3d-live :focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
.f3d-stage { position: relative; flex: 1 1 0; min-height: 120px; }
.f3d-stage canvas { position: absolute; inset: 0; width: 100%; height: 100%; cursor: grab; touch-action: none; display: block;
  border-radius: 9px 9px 0 0; }
.f3d-stage canvas:active { cursor: grabbing; }
.f3d-whose { position: absolute; left: 10px; top: 8px; color: var(--soft); pointer-events: none; font-size: 11px; }
.f3d-angles { position: absolute; right: 10px; top: 8px; color: var(--soft); pointer-events: none; font-size: 11px;
  font-variant-numeric: tabular-nums; }
.f3d-tabs { display: flex; gap: 2px; padding: 5px 6px; border-top: 1px solid var(--line); }
.f3d-live button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
.f3d-tabs button { flex: 1; padding: 4px 0; border-radius: 6px; color: var(--soft); }
.f3d-tabs button:hover { background: var(--well); color: var(--ink); }
.f3d-tabs button[aria-selected=true] { background: color-mix(in srgb, var(--accent) 22%, transparent); color: var(--ink); }
.f3d-rows { height: 140px; overflow-y: auto; padding: 0 10px 4px; scrollbar-width: thin; scrollbar-color: var(--line) transparent; }
.f3d-row { display: grid; grid-template-columns: 96px 1fr 42px 16px; align-items: center; gap: 8px; height: 23px; }
.f3d-row span { color: var(--soft); white-space: nowrap; }
.f3d-row output { text-align: right; font-variant-numeric: tabular-nums; }
.f3d-live input[type=range] { appearance: none; -webkit-appearance: none; width: 100%; height: 16px; margin: 0; background: none; cursor: pointer; }
.f3d-live input[type=range]:disabled { opacity: .4; cursor: default; }
.f3d-row input::-webkit-slider-runnable-track { height: 4px; border-radius: 2px; background: linear-gradient(to right,
  var(--line) var(--from), var(--accent) var(--from), var(--accent) var(--to), var(--line) var(--to)); }
.f3d-row input::-moz-range-track { height: 4px; border-radius: 2px; background: linear-gradient(to right,
  var(--line) var(--from), var(--accent) var(--from), var(--accent) var(--to), var(--line) var(--to)); }
.f3d-live input::-webkit-slider-thumb { -webkit-appearance: none; width: 12px; height: 12px; margin-top: -4px; border-radius: 50%;
  background: var(--ink); border: 0; }
.f3d-live input::-moz-range-thumb { width: 12px; height: 12px; border-radius: 50%; background: var(--ink); border: 0; }
.f3d-key::before, .f3d-diamond::before { content: ""; display: block; width: 8px; height: 8px; margin: auto; transform: rotate(45deg);
  border-radius: 1.5px; box-sizing: border-box; border: 1.5px solid var(--soft); }
.f3d-key:hover::before { border-color: var(--accent); }
.f3d-key[aria-pressed=true]::before { background: #f2b84b; border-color: #f2b84b; }
.f3d-strip { border-top: 1px solid var(--line); padding: 5px 10px 6px; }
.f3d-time { display: grid; grid-template-columns: 84px 1fr 52px; align-items: center; gap: 8px; height: 22px; }
.f3d-play { width: 22px; height: 20px; font-size: 11px !important; border-radius: 5px !important; }
.f3d-play:hover { background: var(--well) !important; }
.f3d-play:disabled { opacity: .35; cursor: default; }
.f3d-seek::-webkit-slider-runnable-track { height: 2px; background: var(--line); border-radius: 1px; }
.f3d-seek::-moz-range-track { height: 2px; background: var(--line); border-radius: 1px; }
.f3d-live .f3d-seek::-webkit-slider-thumb { width: 4px; height: 16px; margin-top: -7px; border-radius: 2px; background: #f2b84b; }
.f3d-live .f3d-seek::-moz-range-thumb { width: 4px; height: 16px; border-radius: 2px; background: #f2b84b; }
.f3d-said { text-align: right; color: var(--soft); font-variant-numeric: tabular-nums; }
.f3d-lanes { height: 70px; overflow-y: auto; scrollbar-width: none; }
.f3d-lanes:empty::before { content: "No keyframes. ◇ beside a slider sets one at this frame."; color: var(--soft); display: block;
  padding: 24px 0; text-align: center; font-size: 11px; }
.f3d-lane { display: grid; grid-template-columns: 84px 1fr; gap: 8px; align-items: center; height: 23px; margin-right: 60px; }
.f3d-lane span { color: var(--soft); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: 11px; }
.f3d-track { position: relative; height: 22px; background: var(--well); border-radius: 4px; }
.f3d-track svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.f3d-track::after { content: ""; position: absolute; top: 0; bottom: 0; left: calc(var(--here) * 100%); width: 1px; background: #f2b84b;
  pointer-events: none; opacity: .8; }
/* what lies behind the clip's end */
.f3d-track::before { content: ""; position: absolute; z-index: 1; top: 0; bottom: 0; right: 0; left: calc(var(--end) * 100%);
  background: var(--floor); opacity: .72; pointer-events: none; }
.f3d-curve { fill: none; stroke: var(--accent); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.f3d-area { fill: var(--accent); opacity: .16; }
.f3d-diamond { position: absolute; z-index: 2; width: 14px; height: 14px; margin: -7px 0 0 -7px; cursor: ew-resize !important; }
.f3d-diamond::before { background: #f2b84b; border-color: #f2b84b; }
.f3d-live .f3d-fold { flex: none; height: 24px; color: var(--soft); font-size: 11px; border-top: 1px solid var(--line); }
.f3d-live .f3d-fold:hover { background: var(--well); color: var(--ink); }
.f3d-note { color: #e0a030; font-size: 11px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.f3d-note:empty { display: none; }`

/** Puts the rules into the page once. */
export function styled() {
  if (!document.getElementById("flow3d-live-style"))
    document.head.append(element("style", { id: "flow3d-live-style", textContent: RULES }))
}

const DARK = { glow: "#454b55", edge: "#191b20", shadow: "rgba(0, 0, 0, .55)", accent: [0.29, 0.64, 1], light: 0 }
const LIGHT = { glow: "#fbfbfa", edge: "#cfd4da", shadow: "rgba(60, 66, 80, .38)", accent: [0.1, 0.45, 0.95], light: 1 }

/** The picture's colours on a dark or a light page: whichever its text tells. @param {HTMLElement} part */
export function colours(part) {
  const [r, g, b] = getComputedStyle(part).color.match(/[\d.]+/g).map(Number)
  return 0.3 * r + 0.6 * g + 0.1 * b > 128 ? DARK : LIGHT
}
