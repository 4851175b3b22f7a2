/** Blocks on a graphics card, and the words that WebGL wants for programs, buffers and textures. */

import { meshOf, RECORD_BYTES, TABLE_WIDTH } from "./mesh.js";

/** @typedef {import("./blocks.js").Block} Block */

/** What the card holds of a block. @typedef {object} Held
 * @property {WebGLBuffer[]} buffers @property {WebGLTexture} table @property {WebGLTexture} states
 * @property {Uint8Array | null} statesOf what the states were last read from
 * @property {WebGLVertexArrayObject} fans of triangles @property {WebGLVertexArrayObject} windings of triangles
 * @property {WebGLVertexArrayObject} lines of edges @property {WebGLVertexArrayObject} dots
 * @property {number} edges @property {number} fanCount @property {{class: number, from: number, count: number}[]} ranges
 * @property {number} smallestWound diameter, base-plane pixels */

export class CardBlocks {
  /** @param {WebGL2RenderingContext} gl */
  constructor(gl) {
    this.gl = gl;
    /** @type {Map<Block, Held>} */
    this.held = new Map();
  }

  /** Bring a block to the card. @param {Block} block @returns {Held} */
  hold(block) {
    const gl = this.gl;
    const mesh = meshOf(block);
    const [records, dots] = [fill(gl, gl.ARRAY_BUFFER, mesh.records), fill(gl, gl.ARRAY_BUFFER, mesh.dots)];
    const [fans, windings] = [fill(gl, gl.ELEMENT_ARRAY_BUFFER, mesh.fans), fill(gl, gl.ELEMENT_ARRAY_BUFFER, mesh.windings)];
    const held = {
      buffers: [records, dots, fans, windings],
      table: texture(gl, gl.RGBA32F, TABLE_WIDTH, gl.RGBA, gl.FLOAT, mesh.table),
      states: texture(gl, gl.R8UI, TABLE_WIDTH, gl.RED_INTEGER, gl.UNSIGNED_BYTE, new Uint8Array(mesh.table.length / 4)),
      statesOf: null,
      fans: vertexArray(gl, () => bindTriangles(gl, records, fans)),
      windings: vertexArray(gl, () => bindTriangles(gl, records, windings)),
      lines: vertexArray(gl, () => bindEdges(gl, records)),
      dots: vertexArray(gl, () => bindDots(gl, dots)),
      edges: mesh.segments - 1, fanCount: mesh.fans.length, ranges: mesh.ranges, smallestWound: mesh.smallestWound,
    };
    this.held.set(block, held);
    return held;
  }

  /** Bring the states of a block's features to the card, if they changed. @param {Block} block @param {Held} held
   * @param {Uint8Array} states of all features, by number */
  setStates(block, held, states) {
    if (held.statesOf === states) return;
    const { gl } = this;
    const rows = Math.max(1, Math.ceil(block.count / TABLE_WIDTH));
    const bytes = new Uint8Array(TABLE_WIDTH * rows);
    for (let at = 0; at < block.count; at++) bytes[at] = states[block.numbers[at]];
    bindTexture(gl, 1, held.states);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, TABLE_WIDTH, rows, gl.RED_INTEGER, gl.UNSIGNED_BYTE, bytes);
    held.statesOf = states;
  }

  /** Let go of a block. @param {Block} block */
  forget(block) {
    const held = this.held.get(block);
    if (held === undefined) return;
    this.held.delete(block);
    for (const each of held.buffers) this.gl.deleteBuffer(each);
    for (const each of [held.table, held.states]) this.gl.deleteTexture(each);
    for (const each of [held.fans, held.windings, held.lines, held.dots]) this.gl.deleteVertexArray(each);
  }
}

/** @param {WebGL2RenderingContext} gl @param {number} target @param {ArrayBuffer | Float32Array | Uint32Array} data */
function fill(gl, target, data) {
  const buffer = /** @type {WebGLBuffer} */ (gl.createBuffer());
  gl.bindVertexArray(null);
  gl.bindBuffer(target, buffer);
  gl.bufferData(target, data, gl.STATIC_DRAW);
  return buffer;
}

/** @param {WebGL2RenderingContext} gl @param {() => void} bind @returns {WebGLVertexArrayObject} */
function vertexArray(gl, bind) {
  const array = /** @type {WebGLVertexArrayObject} */ (gl.createVertexArray());
  gl.bindVertexArray(array);
  bind();
  gl.bindVertexArray(null);
  return array;
}

/** @param {WebGL2RenderingContext} gl @param {WebGLBuffer} records @param {WebGLBuffer} indices */
function bindTriangles(gl, records, indices) {
  gl.bindBuffer(gl.ARRAY_BUFFER, records);
  floats(gl, 0, 2, 0, 0);
  marks(gl, 0);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, indices);
}

/** Each edge is one instance: the vertex where it begins and the one after it. @param {WebGL2RenderingContext} gl
 * @param {WebGLBuffer} records */
function bindEdges(gl, records) {
  gl.bindBuffer(gl.ARRAY_BUFFER, records);
  floats(gl, 0, 2, 0, 1);
  floats(gl, 1, 1, 8, 1);
  floats(gl, 2, 2, RECORD_BYTES, 1);
  floats(gl, 4, 1, RECORD_BYTES + 8, 1);
  marks(gl, 1);
}

/** @param {WebGL2RenderingContext} gl @param {WebGLBuffer} dots */
function bindDots(gl, dots) {
  gl.bindBuffer(gl.ARRAY_BUFFER, dots);
  for (const [place, size, offset] of [[0, 2, 0], [1, 1, 8]]) {
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, size, gl.FLOAT, false, 12, offset);
  }
}

/** @param {WebGL2RenderingContext} gl @param {number} place @param {number} size @param {number} offset
 * @param {number} divisor */
function floats(gl, place, size, offset, divisor) {
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, size, gl.FLOAT, false, RECORD_BYTES, offset);
  gl.vertexAttribDivisor(place, divisor);
}

/** @param {WebGL2RenderingContext} gl @param {number} divisor */
function marks(gl, divisor) {
  gl.enableVertexAttribArray(3);
  gl.vertexAttribIPointer(3, 2, gl.UNSIGNED_SHORT, RECORD_BYTES, 12);
  gl.vertexAttribDivisor(3, divisor);
}

/** @param {WebGL2RenderingContext} gl @param {number} inside @param {number} width @param {number} format
 * @param {number} kind @param {Float32Array | Uint8Array} data @returns {WebGLTexture} */
function texture(gl, inside, width, format, kind, data) {
  const made = /** @type {WebGLTexture} */ (gl.createTexture());
  bindTexture(gl, 0, made);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  const height = data.length / width / (format === gl.RGBA ? 4 : 1);
  gl.texImage2D(gl.TEXTURE_2D, 0, inside, width, height, 0, format, kind, data);
  nearest(gl);
  return made;
}

/** A texture of a canvas, smoothed. @param {WebGL2RenderingContext} gl @param {HTMLCanvasElement} source */
export function pictureTexture(gl, source) {
  const made = /** @type {WebGLTexture} */ (gl.createTexture());
  bindTexture(gl, 0, made);
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, true);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, source);
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.LINEAR);
  for (const wrap of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, wrap, gl.CLAMP_TO_EDGE);
  return made;
}

/** Let the bound texture be read as it is. @param {WebGL2RenderingContext} gl */
export function nearest(gl) {
  for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
}

/** @param {WebGL2RenderingContext} gl @param {number} unit @param {WebGLTexture | null} which */
export function bindTexture(gl, unit, which) {
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, which);
}

/** A linked program and the places of its uniforms. */
export class Program {
  /** @param {WebGL2RenderingContext} gl @param {string[]} sources of vertex and fragment shader */
  constructor(gl, [vertex, fragment]) {
    this.gl = gl;
    this.program = /** @type {WebGLProgram} */ (gl.createProgram());
    for (const [kind, source] of /** @type {[number, string][]} */ ([[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]])) {
      const shader = /** @type {WebGLShader} */ (gl.createShader(kind));
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    }
    gl.linkProgram(this.program);
    if (!gl.getProgramParameter(this.program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(`A shader does not link: ${gl.getProgramInfoLog(this.program)}`);
    }
    /** @type {Map<string, WebGLUniformLocation | null>} */
    this.places = new Map();
  }

  use() {
    this.gl.useProgram(this.program);
    return this;
  }

  /** @param {string} name */
  at(name) {
    if (!this.places.has(name)) this.places.set(name, this.gl.getUniformLocation(this.program, name));
    return this.places.get(name) ?? null;
  }

  /** @param {string} name @param {number} value */
  setInt(name, value) {
    this.gl.uniform1i(this.at(name), value);
  }
}
