// Where an invocation of a scan works that has one for each channel, sequence and chunk.

// One channel of one chunk of one sequence.
struct Place {
  channel: u32,
  chunk: u32,
  first: u32, // token, of all sequences
  count: u32, // tokens
  state: u32, // where its vector 0 lies in [sequences, chunks, VECTORS, channels]; the next is p.channels further
  step: u32, // its place in [sequences, chunks, channels]
}

fn placeOf(lane: u32) -> Place {
  let chunks = (p.length + CHUNK - 1u) / CHUNK;
  let channel = lane % p.channels;
  let chunk = lane / p.channels % p.span + p.chunk;
  let sequence = lane / p.channels / p.span;
  let index = sequence * chunks + chunk;
  return Place(
    channel,
    chunk,
    sequence * p.length + chunk * CHUNK,
    min(CHUNK, p.length - chunk * CHUNK),
    index * VECTORS * p.channels + channel,
    index * p.channels + channel,
  );
}
