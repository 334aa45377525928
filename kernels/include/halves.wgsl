  // Element 0 gets what `merge` makes of all lanes' elements: the lower half of the lanes takes in the upper half, again and again.
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) { ${merge} }
    workgroupBarrier();
  }
