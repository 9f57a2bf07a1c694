import { describe, expect, it } from 'vitest';
import { readRendezvous } from './read-rendezvous.js';

const two = { worldSize: 2, localWorldSize: 2, nodeRank: 0, masterAddr: '127.0.0.1', masterPort: 29500 };

describe('readRendezvous', () => {
  it('is rank 0 of 1 where nothing is set', () => {
    expect(readRendezvous({ PATH: '/bin', RANK: '' })).toEqual({
      ...two,
      rank: 0,
      worldSize: 1,
      localRank: 0,
      localWorldSize: 1,
      launcher: 'none',
    });
  });

  it('reads what torchrun sets, also when mpirun or srun started torchrun', () => {
    const torchrun = {
      RANK: '5',
      WORLD_SIZE: '8',
      LOCAL_RANK: '1',
      LOCAL_WORLD_SIZE: '4',
      GROUP_RANK: '1',
      MASTER_ADDR: 'n0',
      MASTER_PORT: '1234',
      TORCHELASTIC_RUN_ID: 'none',
    };
    const expected = {
      rank: 5,
      worldSize: 8,
      localRank: 1,
      localWorldSize: 4,
      nodeRank: 1,
      masterAddr: 'n0',
      masterPort: 1234,
      launcher: 'env',
    };
    expect(readRendezvous(torchrun)).toEqual(expected);
    expect(
      readRendezvous({
        ...torchrun,
        OMPI_COMM_WORLD_RANK: '1',
        OMPI_COMM_WORLD_SIZE: '2',
        SLURM_PROCID: '1',
        SLURM_STEP_NUM_TASKS: '2',
      }),
    ).toEqual(expected);
  });

  it('takes ranks whose master is this machine for ranks of one machine', () => {
    const env = { RANK: '1', WORLD_SIZE: '2', MASTER_ADDR: '127.0.0.1' };
    expect(readRendezvous(env)).toEqual({ ...two, rank: 1, localRank: 1, launcher: 'env' });
  });

  it('reads what OpenMPI sets, on one machine and on several', () => {
    const env = {
      OMPI_COMM_WORLD_RANK: '1',
      OMPI_COMM_WORLD_SIZE: '2',
      OMPI_COMM_WORLD_LOCAL_RANK: '1',
      OMPI_COMM_WORLD_LOCAL_SIZE: '2',
      OMPI_COMM_WORLD_NODE_RANK: '1',
    };
    expect(readRendezvous(env)).toEqual({ ...two, rank: 1, localRank: 1, launcher: 'openmpi' });
    const several = readRendezvous({
      ...env,
      OMPI_COMM_WORLD_RANK: '3',
      OMPI_COMM_WORLD_SIZE: '4',
      MASTER_PORT: '7',
    });
    expect(several).toEqual({
      rank: 3,
      worldSize: 4,
      localRank: 1,
      localWorldSize: 2,
      masterPort: 7,
      launcher: 'openmpi',
    });
  });

  it('reads what MPICH sets', () => {
    const env = { PMI_RANK: '0', PMI_SIZE: '2', MPI_LOCALRANKID: '0', MPI_LOCALNRANKS: '2' };
    expect(readRendezvous(env)).toEqual({ ...two, rank: 0, localRank: 0, launcher: 'mpich' });
  });

  const slurm = {
    SLURM_PROCID: '9',
    SLURM_STEP_NUM_TASKS: '11',
    SLURM_LOCALID: '1',
    SLURM_NODEID: '2',
    SLURM_STEP_TASKS_PER_NODE: '4(x2),3',
    SLURM_STEP_NODELIST: 'gpu[03-04,9]-ib,login',
    SLURM_JOB_ID: '1234567',
  };

  it('reads what srun sets', () => {
    expect(readRendezvous(slurm)).toEqual({
      rank: 9,
      worldSize: 11,
      localRank: 1,
      localWorldSize: 3,
      nodeRank: 2,
      masterAddr: 'gpu03-ib',
      masterPort: 19567,
      launcher: 'slurm',
    });
  });

  it('completes the PMI of srun with its own variables', () => {
    expect(readRendezvous({ ...slurm, PMI_RANK: '9', PMI_SIZE: '11' })).toMatchObject({
      launcher: 'mpich',
      localRank: 1,
      localWorldSize: 3,
      masterAddr: 'gpu03-ib',
    });
  });

  it('believes mpirun in a Slurm job, whose step counts machines', () => {
    const env = { ...slurm, OMPI_COMM_WORLD_RANK: '1', OMPI_COMM_WORLD_SIZE: '2', MASTER_ADDR: '127.0.0.1' };
    expect(readRendezvous(env)).toEqual({
      ...two,
      rank: 1,
      localRank: 1,
      masterPort: 29500,
      launcher: 'openmpi',
    });
  });

  it('takes the batch script of a Slurm job for one process', () => {
    expect(readRendezvous({ SLURM_PROCID: '0', SLURM_NTASKS: '8', SLURM_JOB_ID: '3' }).launcher).toBe('none');
  });

  const local = { MASTER_ADDR: 'localhost' };
  it.each([
    [{ RANK: '0' }, /RANK is set but WORLD_SIZE is not/],
    [{ WORLD_SIZE: '2' }, /WORLD_SIZE is set but RANK is not/],
    [{ OMPI_COMM_WORLD_SIZE: '2' }, /OMPI_COMM_WORLD_SIZE is set but OMPI_COMM_WORLD_RANK is not/],
    [{ RANK: 'one', WORLD_SIZE: '2' }, /RANK is 'one', expected an integer of at least 0/],
    [{ RANK: '0', WORLD_SIZE: '0' }, /WORLD_SIZE is '0', expected an integer of at least 1/],
    [{ RANK: '2', WORLD_SIZE: '2', ...local }, /RANK=2 does not go with WORLD_SIZE=2/],
    [
      { RANK: '1', WORLD_SIZE: '2', LOCAL_RANK: '1', LOCAL_WORLD_SIZE: '1', ...local },
      /LOCAL_RANK=1 does not go with LOCAL_WORLD_SIZE=1/,
    ],
    [
      { RANK: '1', WORLD_SIZE: '2', LOCAL_RANK: '1', LOCAL_WORLD_SIZE: '4', ...local },
      /LOCAL_WORLD_SIZE=4 does not go with WORLD_SIZE=2/,
    ],
    [
      { RANK: '0', WORLD_SIZE: '2', LOCAL_RANK: '1', LOCAL_WORLD_SIZE: '2', ...local },
      /LOCAL_RANK=1 does not go with RANK=0/,
    ],
    [{ RANK: '1', WORLD_SIZE: '2', MASTER_ADDR: 'n0' }, /RANK and WORLD_SIZE are set but LOCAL_RANK is not/],
    [
      { RANK: '1', WORLD_SIZE: '2', LOCAL_RANK: '0', LOCAL_WORLD_SIZE: '1' },
      /WORLD_SIZE is 2 .* MASTER_ADDR is not set/,
    ],
    [
      { RANK: '0', WORLD_SIZE: '2', ...local, OMPI_COMM_WORLD_RANK: '1', OMPI_COMM_WORLD_SIZE: '2' },
      /RANK=0 and WORLD_SIZE=2 contradict OMPI_COMM_WORLD_RANK=1 and OMPI_COMM_WORLD_SIZE=2/,
    ],
    [{ MASTER_PORT: '70000' }, /MASTER_PORT is 70000/],
    [{ ...slurm, SLURM_STEP_TASKS_PER_NODE: '4(x' }, /SLURM_STEP_TASKS_PER_NODE is '4\(x'/],
    [{ ...slurm, SLURM_STEP_NODELIST: ',' }, /node list ',' names no host/],
  ])('refuses %j', (env, message) => {
    expect(() => readRendezvous(env)).toThrow(
      expect.objectContaining({ code: 'ERR_CONFIG', message: expect.stringMatching(message) }),
    );
  });
});
