/** `x` [rows, inputs] times `weight` [inputs, outputs], in float64. */
export function project(x: ArrayLike<number>, weight: ArrayLike<number>, inputs: number): Float64Array {
  const outputs = weight.length / inputs;
  return Float64Array.from({ length: x.length / inputs * outputs }, (_, i) => {
    const row = Math.floor(i / outputs), column = i % outputs;
    let sum = 0;
    for (let k = 0; k < inputs; k++) sum += x[row * inputs + k] * weight[k * outputs + column];
    return sum;
  });
}

/** `a` [rows, columns] as [columns, rows]. */
export function transpose(a: ArrayLike<number>, columns: number): Float64Array {
  const rows = a.length / columns;
  return Float64Array.from(a, (_, i) => a[i % rows * columns + Math.floor(i / rows)]);
}
