/** What both workers are started with. */
export interface WorkerSettings {
  threads: number;
}

/** Sizes of a Transformer-XL step; `config` has the twin's names. */
export interface TransformerShape {
  config: {
    n_token: number;
    n_layer: number;
    n_head: number;
    d_model: number;
    d_head: number;
    d_inner: number;
    mem_len: number;
    num_expert: number;
    top_k: number;
    balance_weight: number;
  };
  /** Target length T. */
  length: number;
  batch: number;
}

/** One measurement. */
export interface Request {
  case: string;
  iterations: number;
  transformer?: TransformerShape;
}
