import { afterEach, describe, expect, it } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import type { Tensor } from '../index.js';
import * as torch from '../index.js';
import { expectAllClose } from '../testing/index.js';

const { optim } = torch;

// Each case must end in a coded error; the check after each one shows that the process still computes.
afterEach(() => {
  torch.tidy(() => {
    const w = leaf();
    w.grad = torch.ones([2]);
    new optim.SGD([w], { lr: 1 }).step();
    expectAllClose(w, [0, 0]);
  });
});

const leaf = (): Tensor => torch.ones([2], { requiresGrad: true });

describe('optimizers refuse', () => {
  refuses([
    [
      'a negative rate',
      'ERR_ARGUMENT',
      /Adam: lr is -1, expected a number 0 or more/,
      () => new optim.Adam([leaf()], { lr: -1 }),
    ],
    ['a rate that is NaN', 'ERR_ARGUMENT', /lr is NaN/, () => new optim.SGD([leaf()], { lr: Number.NaN })],
    [
      'a rate that is no number',
      'ERR_ARGUMENT',
      /lr is 0.1/,
      () => new optim.SGD([leaf()], { lr: wrong('0.1') }),
    ],
    [
      'a beta of 1',
      'ERR_ARGUMENT',
      /AdamW: betas\[1\] is 1, expected a number in \[0, 1\)/,
      () => new optim.AdamW([leaf()], { betas: [0.9, 1] }),
    ],
    [
      'a negative beta',
      'ERR_ARGUMENT',
      /betas\[0\] is -0.1/,
      () => new optim.Adam([leaf()], { betas: [-0.1, 0.9] }),
    ],
    [
      'one beta',
      'ERR_ARGUMENT',
      /betas is 0.9, expected two numbers/,
      () => new optim.Adam([leaf()], { betas: wrong(0.9) }),
    ],
    ['a negative epsilon', 'ERR_ARGUMENT', /eps is -1/, () => new optim.Adagrad([leaf()], { eps: -1 })],
    [
      'a negative weight decay',
      'ERR_ARGUMENT',
      /weightDecay is -0.1/,
      () => new optim.SGD([leaf()], { weightDecay: -0.1 }),
    ],
    [
      'Nesterov without momentum',
      'ERR_ARGUMENT',
      /nesterov needs a momentum/,
      () => new optim.SGD([leaf()], { nesterov: true }),
    ],
    [
      'a flag that is a number',
      'ERR_ARGUMENT',
      /amsgrad is 1/,
      () => new optim.Adam([leaf()], { amsgrad: wrong(1) }),
    ],
    [
      'an unknown option',
      'ERR_ARGUMENT',
      /no option 'learningRate'. Options are: lr, betas/,
      () => new optim.Adam([leaf()], wrong({ learningRate: 1 })),
    ],
    [
      "PyTorch's spelling of an option",
      'ERR_ARGUMENT',
      /no option 'weight_decay'/,
      () => new optim.Adam([leaf()], wrong({ weight_decay: 1 })),
    ],
    [
      'a negative accumulator',
      'ERR_ARGUMENT',
      /initialAccumulatorValue is -1/,
      () => new optim.Adagrad([leaf()], { initialAccumulatorValue: -1 }),
    ],
    ['no parameters', 'ERR_ARGUMENT', /parameter list is empty/, () => new optim.Adam([])],
    ['a single tensor', 'ERR_ARGUMENT', /Wrap a single tensor/, () => new optim.Adam(wrong(leaf()))],
    ['nothing', 'ERR_ARGUMENT', /must be an array/, () => new optim.Adam(wrong(undefined))],
    [
      'numbers as parameters',
      'ERR_ARGUMENT',
      /parameter group must be an object with `params`/,
      () => new optim.Adam(wrong([1, 2])),
    ],
    ['a group without parameters', 'ERR_ARGUMENT', /`params`/, () => new optim.Adam(wrong([{ lr: 1 }]))],
    [
      'an array in a group that is no tensor',
      'ERR_ARGUMENT',
      /parameter 0 is not a tensor/,
      () => new optim.Adam(wrong([{ params: [3] }])),
    ],
    [
      'a group with a bad option',
      'ERR_ARGUMENT',
      /lr is -2/,
      () => new optim.Adam([{ params: [leaf()], lr: -2 }]),
    ],
    [
      'a tensor that is no leaf',
      'ERR_ARGUMENT',
      /parameter 0 is the result of an operator/,
      () => new optim.Adam([leaf().mul(2)]),
    ],
    [
      'integers',
      'ERR_DTYPE',
      /parameter 0 is int64/,
      () => new optim.Adam([torch.ones([2], { dtype: 'int64' })]),
    ],
    [
      'a disposed tensor',
      'ERR_DISPOSED',
      /./,
      () => {
        const w = leaf();
        w.dispose();
        return new optim.Adam([w]);
      },
    ],
    [
      'a parameter twice',
      'ERR_ARGUMENT',
      /parameter 1 of the group occurs twice/,
      () => {
        const w = leaf();
        return new optim.Adam([w, w]);
      },
    ],
    [
      'a parameter in two groups',
      'ERR_ARGUMENT',
      /occurs twice/,
      () => {
        const w = leaf();
        return new optim.Adam([{ params: [w] }, { params: [w] }]);
      },
    ],
    [
      'names for some',
      'ERR_ARGUMENT',
      /all parameters of a group have names, or none/,
      () => new optim.Adam(wrong([['w', leaf()], leaf()])),
    ],
    [
      'names in one group only',
      'ERR_ARGUMENT',
      /all groups have parameter names, or none/,
      () => new optim.Adam([{ params: [leaf()] }, { params: [['w', leaf()]] }]),
    ],
  ]);

  it('to step with disposed parameters, and with parameters that became another dtype', () => {
    torch.tidy(() => {
      const w = leaf();
      const optimizer = new optim.Adam([w]);
      w.grad = torch.ones([2]);
      optimizer.step();
      w.dispose();
      expect(() => optimizer.step()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
      expect(() => optimizer.zeroGrad()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
      optimizer.dispose();

      const model = new torch.nn.Linear(2, 2);
      const moved = new optim.Adam(model.parameters());
      const step = () =>
        torch.tidy(() => {
          model
            .call(torch.ones([1, 2], { dtype: model.weight.dtype }))
            .sum()
            .backward();
          moved.step();
        });
      step();
      model.to('float64');
      expect(step).toThrow(
        expect.objectContaining({
          code: 'ERR_DTYPE',
          message: expect.stringMatching(/stateDict\(\) into a new optimizer/),
        }),
      );
      // What the message proposes.
      const renewed = new optim.Adam(model.parameters());
      renewed.loadStateDict(moved.stateDict());
      model.zeroGrad();
      torch.tidy(() =>
        model
          .call(torch.ones([1, 2], { dtype: 'float64' }))
          .sum()
          .backward(),
      );
      renewed.step();
      expect(renewed.state.get(model.weight)!['exp_avg']!.dtype).toBe('float64');
      renewed.dispose();
      moved.dispose();
      model.dispose();
    });
  });
});

describe('loadStateDict refuses', () => {
  const stepped = (): { optimizer: torch.optim.Adam; state: torch.optim.OptimizerStateDict } => {
    const params = [leaf(), leaf()];
    for (const param of params) param.grad = torch.ones([2]);
    const optimizer = new optim.Adam(params, { lr: 0.5 });
    optimizer.step();
    return { optimizer, state: optimizer.stateDict() };
  };
  type Change = (state: torch.optim.OptimizerStateDict) => unknown;
  const cases: [what: string, message: RegExp, change: Change][] = [
    ['something else', /expected \{ state/, () => 3],
    ['a state without groups', /expected \{ state/, ({ state }) => ({ state })],
    [
      'more groups',
      /has 2 parameter groups, the optimizer has 1/,
      ({ state, param_groups: [g] }) => ({ state, param_groups: [g, g] }),
    ],
    [
      'groups of another size',
      /group 0 has 1 parameters in the state and 2/,
      ({ state, param_groups: [g] }) => ({ state, param_groups: [{ ...g, params: [0] }] }),
    ],
    [
      'a bad option',
      /parameter group 0: Adam: lr is -1/,
      ({ state, param_groups: [g] }) => ({ state, param_groups: [{ ...g, lr: -1 }] }),
    ],
    [
      'state of an unknown parameter',
      /state of parameter 7 belongs to no/,
      ({ state, param_groups }) => ({ state: { ...state, 7: state['0'] }, param_groups }),
    ],
    [
      'state of another optimizer',
      /lacks step, exp_avg, exp_avg_sq and has an unexpected momentum_buffer/,
      ({ param_groups }) => ({ state: { 0: { momentum_buffer: torch.ones([2]) } }, param_groups }),
    ],
    [
      'state that is incomplete',
      /parameter 1 lacks exp_avg_sq/,
      ({ state, param_groups }) => {
        const { exp_avg_sq: _gone, ...rest } = state['1']!;
        return { state: { ...state, 1: rest }, param_groups };
      },
    ],
    [
      'a state tensor of another shape',
      /exp_avg of parameter 0 has shape \[3\], expected shape \[2\]/,
      ({ state, param_groups }) => ({
        state: { ...state, 0: { ...state['0'], exp_avg: torch.ones([3]) } },
        param_groups,
      }),
    ],
    [
      'a step of two elements',
      /step of parameter 0 has shape \[2\], expected one element/,
      ({ state, param_groups }) => ({
        state: { ...state, 0: { ...state['0'], step: torch.ones([2]) } },
        param_groups,
      }),
    ],
    [
      'a state value that is no tensor',
      /exp_avg of parameter 0 is not a tensor/,
      ({ state, param_groups }) => ({ state: { ...state, 0: { ...state['0'], exp_avg: 3 } }, param_groups }),
    ],
    [
      'options that ask for more state',
      /lacks max_exp_avg_sq/,
      ({ state, param_groups: [g] }) => ({ state, param_groups: [{ ...g, amsgrad: true }] }),
    ],
  ];
  it.each(cases)('%s, and changes nothing', (_what, message, change) => {
    torch.tidy(() => {
      const { optimizer, state } = stepped();
      const before = String(state.state['0']!['exp_avg']);
      const bad = change(optimizer.stateDict());
      expect(() => optimizer.loadStateDict(wrong(bad))).toThrow(
        expect.objectContaining({ code: 'ERR_STATE_DICT', message: expect.stringMatching(message) }),
      );
      expect(optimizer.paramGroups[0]).toMatchObject({ lr: 0.5, amsgrad: false });
      expect(String(optimizer.stateDict().state['0']!['exp_avg'])).toBe(before);
      optimizer.dispose();
    });
  });
});
