// Organ surfaces and the skin's veil in WebGL: 16-bit positions in the box of all, signed bytes as normals.
"use strict";
const SURFACE_VERTEX = `attribute vec3 p; attribute vec3 n; uniform mat3 turn; uniform vec3 low, span, middle; uniform float zoom;
  varying vec3 normal;
  void main() {
    normal = turn * n;
    vec3 q = turn * (low + p * span - middle) * zoom;
    gl_Position = vec4(q.x, q.z, q.y * 0.2, 1.0);
  }`;
const SURFACE_FRAGMENT = `precision mediump float; varying vec3 normal; uniform vec4 colour;
  void main() {
    vec3 m = normalize(normal);
    float lit = max(dot(m, normalize(vec3(-0.35, -0.8, 0.5))), 0.0), rim = 1.0 - abs(m.y);
    float a = colour.a < 1.0 ? colour.a * (0.35 + 1.6 * rim * rim) : 1.0;
    gl_FragColor = vec4(colour.rgb * (0.32 + 0.68 * lit), a);
  }`;

function makeSurfaces(data, organs) {
  const canvas = document.getElementById("solid"), gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
  if (!gl) { canvas.parentElement.classList.add("flat"); return () => {}; }
  const program = linked(gl), uniform = (name) => gl.getUniformLocation(program, name);
  const [points, normals] = ["p", "n"].map((name) => gl.getAttribLocation(program, name));
  const meshes = data.meshes.map((mesh) => uploaded(gl, mesh));
  const [low, high] = data.mesh_box, span = high.map((value, axis) => value - low[axis]);
  const [near, far] = data.focus, middle = near.map((value, axis) => (value + far[axis]) / 2);
  const view = { azimuth: 0.6, elevation: 0.18, zoom: 1.55 / Math.max(...far.map((value, axis) => value - near[axis])) };
  let queued = false;
  gl.enableVertexAttribArray(points); gl.enableVertexAttribArray(normals);
  gl.enable(gl.DEPTH_TEST); gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);

  function show() {
    queued = false;
    const side = canvas.clientWidth * devicePixelRatio;
    canvas.width = canvas.height = side;
    gl.viewport(0, 0, side, side);
    gl.clearColor(0.063, 0.078, 0.102, 1); gl.depthMask(true); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const { azimuth, elevation } = view;
    const [ca, sa, ce, se] = [Math.cos(azimuth), Math.sin(azimuth), Math.cos(elevation), Math.sin(elevation)];
    gl.uniformMatrix3fv(uniform("turn"), false, [ca, -sa * ce, -sa * se, sa, ca * ce, ca * se, 0, -se, ce]);
    gl.uniform3fv(uniform("low"), low); gl.uniform3fv(uniform("span"), span); gl.uniform3fv(uniform("middle"), middle);
    gl.uniform1f(uniform("zoom"), view.zoom);
    gl.disable(gl.BLEND);
    meshes.filter((mesh) => organs.get(mesh.label)?.shown).forEach((mesh) => put(mesh, 1));
    gl.enable(gl.BLEND); gl.depthMask(false);
    meshes.filter((mesh) => mesh.label === 0).forEach((mesh) => put(mesh, 0.0022 * document.getElementById("skin").value));
  }

  function put(mesh, opacity) {
    gl.uniform4fv(uniform("colour"), [...mesh.rgb, opacity]);
    gl.bindBuffer(gl.ARRAY_BUFFER, mesh.points); gl.vertexAttribPointer(points, 3, gl.UNSIGNED_SHORT, true, 8, 0);
    gl.bindBuffer(gl.ARRAY_BUFFER, mesh.normals); gl.vertexAttribPointer(normals, 3, gl.BYTE, true, 4, 0);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, mesh.triangles); gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_SHORT, 0);
  }

  const request = () => { if (!queued) { queued = true; requestAnimationFrame(show); } };
  canvas.addEventListener("pointerdown", (event) => { canvas.focus(); canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    view.azimuth -= event.movementX / 150;
    view.elevation = Math.max(-1.5, Math.min(1.5, view.elevation + event.movementY / 150));
    request();
  });
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas) return;
    event.preventDefault();
    view.zoom *= Math.exp(-event.deltaY / 800);
    request();
  }, { passive: false });
  document.getElementById("skin").addEventListener("input", request);
  show();
  return request;
}

function linked(gl) {
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, SURFACE_VERTEX], [gl.FRAGMENT_SHADER, SURFACE_FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text); gl.compileShader(shader); gl.attachShader(program, shader);
  }
  gl.linkProgram(program); gl.useProgram(program);
  return program;
}

function uploaded(gl, mesh) {
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
  const buffer = (kind, content) => {
    const made = gl.createBuffer();
    gl.bindBuffer(kind, made); gl.bufferData(kind, content, gl.STATIC_DRAW);
    return made;
  };
  const triangles = new Uint16Array(bytes(mesh.triangles));
  return {
    label: mesh.label, rgb: mesh.rgb.map((value) => value / 255), count: triangles.length,
    points: buffer(gl.ARRAY_BUFFER, new Uint16Array(bytes(mesh.points))),
    normals: buffer(gl.ARRAY_BUFFER, new Int8Array(bytes(mesh.normals))),
    triangles: buffer(gl.ELEMENT_ARRAY_BUFFER, triangles),
  };
}
