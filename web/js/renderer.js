/**
 * Draws heads with WebGL 2. A page has one context however many nodes show a head (browsers allow about 16): it draws into
 * a canvas of its own, and each node copies its picture from there. What no view uses any more is freed.
 * @typedef {import("./packet.js").Packet} Packet
 * @typedef {{scale: number, x: number, y: number, near: number, far: number}} Lens what a view looks at: see `lens.js`
 */
import { normals } from "./mesh.js"

const VERTEX = `#version 300 es
in vec3 position; in vec3 normal; in vec3 tint; in vec4 regions; in vec4 eye; in float fade;
uniform vec4 lens; uniform vec2 range; // scale x, scale y, centre; near, far
out vec3 n; out vec3 p; out vec3 colour; out vec4 part; out vec4 ball; out float solid;
void main() {
  n = normal * vec3(1, -1, -1); p = position * vec3(1, -1, -1);
  colour = tint; part = regions; ball = eye; solid = fade;
  float z = position.z;
  gl_Position = vec4((position.x - lens.z * z) * lens.x, -(position.y - lens.w * z) * lens.y,
    ((z - range.x) / (range.y - range.x) * 2.0 - 1.0) * z, z);
}`

// A large soft key from the upper left, a cool rim from behind on the right, light from the sky and from the ground.
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 n; in vec3 p; in vec3 colour; in vec4 part; in vec4 ball; in float solid;
uniform vec4 marked; uniform vec3 accent; uniform float light;
out vec4 pixel;
vec3 linear(vec3 c) { return pow(c, vec3(2.2)); }
void main() {
  vec3 N = normalize(n), V = normalize(-p);
  if (dot(N, V) < 0.0) N = N - 2.0 * dot(N, V) * V;
  vec3 base = linear(colour);
  float gloss = 0.10, sharp = 22.0;
  if (ball.w > 0.0) {
    float r = length(ball.xy);
    float front = step(0.0, ball.z);
    vec3 iris = mix(linear(vec3(0.30, 0.42, 0.50)), linear(vec3(0.16, 0.22, 0.28)), smoothstep(0.30, 0.50, r));
    base = mix(base, iris, front * (1.0 - smoothstep(0.47, 0.52, r)));
    base = mix(base, vec3(0.006), front * (1.0 - smoothstep(0.19, 0.23, r)));
    gloss = 0.75; sharp = 180.0;
  }
  base *= 1.0 - 0.30 * part.x * (1.0 - ball.w); // a breath of brow
  vec3 key = normalize(vec3(-0.55, 0.62, 0.75)), back = normalize(vec3(0.85, 0.35, -0.55));
  vec3 fill = normalize(vec3(0.8, 0.05, 0.6));
  float k = dot(N, key), wrapped = clamp((k + 0.35) / 1.35, 0.0, 1.0);
  vec3 warm = mix(vec3(0.95, 0.42, 0.30), vec3(1.0), smoothstep(0.0, 0.55, wrapped)); // light through skin at the terminator
  vec3 lit = wrapped * wrapped * warm * vec3(1.45, 1.38, 1.28);
  lit += max(dot(N, fill) + 0.2, 0.0) * vec3(0.16, 0.19, 0.25);
  lit += mix(vec3(0.15, 0.12, 0.11), vec3(0.26, 0.29, 0.34), N.y * 0.5 + 0.5);
  float edge = pow(1.0 - max(dot(N, V), 0.0), 3.0);
  vec3 c = base * lit;
  c += edge * smoothstep(-0.3, 0.7, dot(N, back)) * mix(vec3(0.75, 0.95, 1.25), vec3(0.5, 0.55, 0.6), light);
  c += gloss * pow(max(dot(N, normalize(key + V)), 0.0), sharp);
  float mark = dot(marked, part);
  c = mix(c, c * 0.72 + linear(accent) * 0.40, mark * 0.85);
  c = c / (1.0 + 0.22 * c);
  pixel = vec4(pow(c, vec3(1.0 / 2.2)), 1.0) * solid;
}`

const ATTRIBUTES = ["position", "normal", "tint", "regions", "eye", "fade"]

/** @type {{gl: WebGL2RenderingContext, program: WebGLProgram, users: number, meshes: Map<string, any>} | null} */
let shared = null

/** Whether this browser draws heads at all. */
export function canDraw() {
  if (shared) return true
  const probe = document.createElement("canvas").getContext("webgl2")
  probe?.getExtension("WEBGL_lose_context")?.loseContext()
  return !!probe
}

export class Renderer {
  #open = true

  constructor() {
    shared ??= { ...begun(), users: 0, meshes: new Map() }
    shared.users++
  }

  /**
   * Draw a head into a 2D canvas of the size it has.
   * @param {CanvasRenderingContext2D} target @param {Packet} head @param {Float32Array} points camera frame @param {Lens} lens
   * @param {{marked: number[], accent: number[], light: number}} look regions to mark, sRGB 0..1, 1 for a light page
   */
  draw(target, head, points, lens, look) {
    const { width, height } = target.canvas
    if (!this.#open || !width || !height) return
    if (shared.gl.isContextLost()) Object.assign(shared, begun(), { meshes: new Map() })
    const { gl, program } = shared, canvas = /** @type {HTMLCanvasElement} */ (gl.canvas)
    if (canvas.width < width || canvas.height < height)
      [canvas.width, canvas.height] = [Math.max(canvas.width, width), Math.max(canvas.height, height)]
    const mesh = meshOf(gl, program, head)
    gl.viewport(0, canvas.height - height, width, height)
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT)
    gl.useProgram(program)
    gl.bindVertexArray(mesh.array)
    for (const [name, numbers] of [["position", points], ["normal", normals(points, head.arrays.faces)]]) {
      gl.bindBuffer(gl.ARRAY_BUFFER, mesh.buffers[name])
      gl.bufferData(gl.ARRAY_BUFFER, numbers, gl.DYNAMIC_DRAW)
    }
    const at = (name) => gl.getUniformLocation(program, name)
    gl.uniform4f(at("lens"), (lens.scale * height) / width, lens.scale, lens.x, lens.y)
    gl.uniform2f(at("range"), lens.near, lens.far)
    gl.uniform4fv(at("marked"), look.marked)
    gl.uniform3fv(at("accent"), look.accent)
    gl.uniform1f(at("light"), look.light)
    gl.drawElements(gl.TRIANGLES, head.arrays.faces.length, gl.UNSIGNED_INT, 0)
    target.drawImage(canvas, 0, 0, width, height, 0, 0, width, height)
  }

  /** The last one to go takes the context with it. */
  free() {
    if (!this.#open) return
    this.#open = false
    if (--shared.users) return
    const { gl, meshes } = shared
    for (const mesh of meshes.values()) freed(gl, mesh)
    gl.getExtension("WEBGL_lose_context")?.loseContext()
    shared = null
  }
}

/** How many contexts, views and meshes there are, for whoever looks for leaks. */
export const inUse = () => ({ contexts: shared ? 1 : 0, views: shared?.users ?? 0, meshes: shared?.meshes.size ?? 0 })

function begun() {
  const canvas = document.createElement("canvas")
  canvas.width = canvas.height = 16
  const gl = canvas.getContext("webgl2", { antialias: true, alpha: true, premultipliedAlpha: true, powerPreference: "low-power" })
  if (!gl) throw new Error("this browser has no WebGL 2")
  const program = gl.createProgram()
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind)
    gl.shaderSource(shader, text)
    gl.compileShader(shader)
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader))
    gl.attachShader(program, shader)
  }
  ATTRIBUTES.forEach((name, i) => gl.bindAttribLocation(program, i, name))
  gl.linkProgram(program)
  gl.enable(gl.DEPTH_TEST)
  gl.clearColor(0, 0, 0, 0)
  return { gl, program }
}

/** A head's fixed buffers, made once. Of several heads the one that was drawn last stays, with up to seven others. */
function meshOf(gl, program, head) {
  const { meshes } = shared, key = head.told.digest
  let mesh = meshes.get(key)
  meshes.delete(key)
  mesh ??= uploaded(gl, head)
  meshes.set(key, mesh)
  if (meshes.size > 8) {
    const [oldest] = meshes.keys()
    freed(gl, meshes.get(oldest))
    meshes.delete(oldest)
  }
  return mesh
}

function uploaded(gl, head) {
  const array = gl.createVertexArray(), buffers = {}, { rest, tint, regions, faces } = head.arrays
  gl.bindVertexArray(array)
  const fixed = { tint, regions, eye: eyeballs(head), fade: foot(rest) }
  for (const [i, name] of ATTRIBUTES.entries()) {
    buffers[name] = gl.createBuffer()
    gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name])
    const numbers = fixed[name] ?? rest, bytes = numbers instanceof Uint8Array
    gl.bufferData(gl.ARRAY_BUFFER, numbers, gl.STATIC_DRAW)
    gl.enableVertexAttribArray(i)
    gl.vertexAttribPointer(i, (3 * numbers.length) / rest.length, bytes ? gl.UNSIGNED_BYTE : gl.FLOAT, bytes, 0, 0)
  }
  buffers.faces = gl.createBuffer()
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers.faces)
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW)
  return { array, buffers }
}

function freed(gl, { array, buffers }) {
  gl.deleteVertexArray(array)
  Object.values(buffers).forEach((b) => gl.deleteBuffer(b))
}

/** For vertices that hang on an eye's joint alone: where on the eyeball they lie, in radii, and 1; else zeros. */
function eyeballs({ told, arrays }) {
  const n = arrays.rest.length / 3, out = new Float32Array(4 * n), joints = told.parents.length
  for (const name of Object.values(told.gaze.sides)) {
    const j = told.joints.indexOf(name) + 1
    if (!j) continue
    const mine = [...Array(n).keys()].filter((v) => arrays.skin_weights[v * joints + j] > 0.5)
    const from = (v) => [0, 1, 2].map((i) => arrays.rest[3 * v + i] - arrays.skeleton[3 * j + i])
    const radius = Math.max(...mine.map((v) => Math.hypot(...from(v))))
    for (const v of mine) out.set([...from(v).map((x) => x / radius), 1], 4 * v)
  }
  return out
}

/** 1, falling to 0 towards the lower end of the neck. */
function foot(rest) {
  const n = rest.length / 3, out = new Float32Array(n)
  let low = Infinity, high = -Infinity
  for (let v = 0; v < n; v++) [low, high] = [Math.min(low, rest[3 * v + 1]), Math.max(high, rest[3 * v + 1])]
  for (let v = 0; v < n; v++) {
    const t = Math.min(Math.max(((rest[3 * v + 1] - low) / (high - low) - 0.02) / 0.16, 0), 1)
    out[v] = t * t * (3 - 2 * t)
  }
  return out
}
